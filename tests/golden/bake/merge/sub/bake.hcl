target "default" {
  context  = "../web"
  contexts = { here = ".", elsewhere = "docker-image://x" }
}
target "none" {}
target "same" {
  context = target.default.context
}
