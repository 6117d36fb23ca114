variable "V" {
  default = "second"
}
target "web" {
  tags        = ["example/web:override"]
  annotations = ["b=2"]
}
