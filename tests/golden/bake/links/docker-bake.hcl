target "base" {
  tags      = ["example/base"]
  platforms = ["linux/amd64", "linux/arm64"]
  network   = "host"
}
target "middle" {
  contexts = { base = "target:base" }
}
target "app" {
  platforms = ["linux/arm64", "linux/amd64"]
  contexts = {
    base   = "target:base"
    middle = "target:middle"
    src    = "../src"
    none   = ""
  }
}
group "a" {
  targets = ["b", "app"]
}
group "b" {
  targets = ["middle"]
}
