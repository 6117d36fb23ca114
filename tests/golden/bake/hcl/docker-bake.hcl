# All attributes of a target, in their text and object forms.
group "default" {
  targets = ["app", "tools"]
}

group "tools" {
  description = "everything but the app"
  targets     = ["lint", "docs", "lint"]
}

target "_base" {
  description = "not to be built alone"
  dockerfile  = "Dockerfile.base"
  args        = { BASE = "debian", SHARED = "base" }
  labels      = { "org.example.kind" = "base" }
  tags        = ["example/base"]
  platforms   = ["linux/amd64"]
  cache-from  = ["example/cache:base"]
}

target "app" {
  inherits    = ["_base"]
  description = "the program <itself> & more"
  context     = "./src/../app/"
  contexts = {
    assets = "./assets"
    alpine = "docker-image://alpine:3.20"
    source = "https://git.example/repository.git#main"
  }
  args = {
    SHARED = "app"
    NUMBER = 42
    FLAG   = true
    NOTHING = null
    DOLLAR = "$${NOT_A_VARIABLE} %%{if}"
  }
  labels = {
    "org.example.quote" = "say \"hi\"\ttwice"
  }
  annotations = ["index,manifest:org.example.author=me", "org.example.x=y"]
  tags        = ["example/app:1", "example/app:1", "", "example/app:latest"]
  attest = [
    "type=sbom",
    { type = "provenance", mode = "max" },
    { type = "provenance", mode = "min", disabled = true },
  ]
  cache-from = [{ type = "registry", ref = "example/cache:app" }, "type=local,src=cache", "a,b"]
  cache-to   = ["type=registry,ref=example/cache:app,mode=max", { type = "inline" }]
  secret     = [{ id = "token", env = "TOKEN" }, "type=env,id=other,src=OTHER"]
  output     = ["type=image,push=true", { type = "local", dest = "out" }, "out2"]
  platforms  = ["linux/arm64", "linux/amd64"]
  pull       = true
  no-cache   = "false"
  network    = "host"
  no-cache-filter = ["one", "two", "one"]
  shm-size   = "128m"
  ulimits    = ["nofile=1024:2048"]
  resources  = { memory = "1g", cpu-shares = 512, cpuset-cpus = "0-1" }
  call       = "build"
  entitlements = ["security.insecure"]
  extra-hosts = { registry = "10.0.0.1" }
  target     = "final"
  policy     = [{ filename = "policy.rego", strict = true }]
}

target "lint" {
  dockerfile-inline = <<EOT
FROM alpine
RUN echo "$${HOME}" && echo %%{not}
EOT
  call = "check"
}

target "docs" {
  inherits = ["app"]
  tags     = []
  output   = ["type=tar,dest=docs.tar"]
  labels   = { "org.example.kind" = "docs" }
  unknown-attribute = "is ignored"
}
