# Both images for both machines, by BuildKit: docker buildx bake -f images/docker-bake.hcl
# One machine, into the local engine: docker buildx bake -f images/docker-bake.hcl --load --set '*.platform=linux/amd64'

variable "VERSION" { default = "development" }
variable "REVISION" { default = "" }
variable "CREATED" { default = "1970-01-01T00:00:00Z" }
variable "SOURCE_DATE_EPOCH" { default = "0" }
variable "GOPROXY" { default = "" }
variable "IMAGE" { default = "rollup-entrypoint" }
variable "TESTNET_IMAGE" { default = "rollup-testnet" }

group "default" {
  targets = ["entrypoint", "testnet"]
}

target "both" {
  context   = "."
  platforms = ["linux/amd64", "linux/arm64"]
  args = {
    VERSION           = VERSION
    REVISION          = REVISION
    CREATED           = CREATED
    SOURCE_DATE_EPOCH = SOURCE_DATE_EPOCH
    GOPROXY           = GOPROXY
  }
}

target "entrypoint" {
  inherits   = ["both"]
  dockerfile = "images/entrypoint.Dockerfile"
  tags       = [IMAGE]
}

target "testnet" {
  inherits   = ["both"]
  dockerfile = "images/testnet.Dockerfile"
  tags       = [TESTNET_IMAGE]
}
