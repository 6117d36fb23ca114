target "app" {
  args      = { A = "1", B = "2" }
  tags      = ["example/app"]
  platforms = ["linux/amd64"]
  output    = ["type=local,dest=out"]
  secret    = ["id=token,src=a"]
  cache-from = ["example/cache"]
}
target "app-debug" {
  inherits = ["app"]
  output   = ["type=image,name=x"]
}
target "db" {
  tags = ["example/db"]
}
