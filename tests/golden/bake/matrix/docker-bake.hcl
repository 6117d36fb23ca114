variable "REGISTRY" {
  default = "example"
}

target "service" {
  name = "service-${replace(item.version, ".", "-")}"
  matrix = {
    item = [
      { version = "1.0", base = "alpine" },
      { version = "2.0", base = "debian" },
    ]
  }
  args = {
    BASE = item.base
    NAME = upper(item.base)
  }
  tags = ["${REGISTRY}/service:${item.version}"]
}

target "plain" {
  name   = lang
  matrix = { lang = ["go", "rust"] }
  context = lang
  contexts = {
    previous = "target:service-1-0"
  }
}

target "refers" {
  tags = concat(target.service-2-0.tags, ["more:${length(target.service-1-0.args)}"])
  dockerfile = "${target.go.context}/Dockerfile"
}

target "empty" {
  name = "empty-${x}"
  matrix = { x = [] }
}

group "default" {
  targets = ["service", "plain"]
}
