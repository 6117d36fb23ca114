variable "V" {
  default = "first"
}
group "default" {
  targets = ["web", "extra"]
}
target "web" {
  args      = { FROM = "hcl", V = V }
  labels    = { a = "hcl" }
  platforms = ["linux/amd64"]
  annotations = ["a=1"]
}
target "extra" {
  inherits = ["web"]
  context  = "extra-${V}"
}
