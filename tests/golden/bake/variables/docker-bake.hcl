variable "PLAIN" {
  default     = "plain"
  description = "a text"
}
variable "NUMBER" {
  default = 7
}
variable "FLAG" {
  default = false
}
variable "EMPTY" {}
variable "NULL" {
  default = null
}
variable "TYPED" {
  type = string
}
variable "LIST" {
  type        = list(string)
  default     = ["a", "b"]
  description = "several texts"
}
variable "NUMBERS" {
  type    = set(number)
  default = [3, 1, 2, 3]
}
variable "MAP" {
  type    = map(string)
  default = { k = "v" }
}
variable "TUPLE" {
  type    = tuple([string, number, bool])
  default = ["x", 1, true]
}
variable "OBJECT" {
  type    = object({ name = string, count = optional(number) })
  default = { name = "n" }
}
variable "ANY" {
  type    = any
  default = "q"
}
variable "INFERRED" {
  default = { a = [1, "b", null], c = { d = true } }
}
variable "DERIVED" {
  default = "${PLAIN}-${NUMBER + 1}"
}
variable "CHECKED" {
  default = "ok"
  validation {
    condition     = CHECKED != "bad"
    error_message = "CHECKED must not be ${CHECKED}."
  }
  validation {
    condition     = length(LIST) > 0
    error_message = "LIST must not be empty."
  }
}

suffix = "-${PLAIN}"

target "default" {
  args = {
    PLAIN   = PLAIN
    NUMBER  = NUMBER
    FLAG    = FLAG
    EMPTY   = EMPTY
    NULL    = NULL
    TYPED   = TYPED
    LIST    = join("/", LIST)
    NUMBERS = join("/", [for n in NUMBERS : n * 2])
    MAP     = jsonencode(MAP)
    TUPLE   = "${TUPLE[0]}${TUPLE[1]}${TUPLE[2]}"
    OBJECT  = jsonencode(OBJECT)
    DERIVED = DERIVED
    SUFFIX  = suffix
    CONTEXT = BAKE_CMD_CONTEXT
    CHOICE  = FLAG ? "yes" : "no"
    SAFE    = try(INFERRED.a[5], "none")
    CAN     = can(INFERRED.c.d)
  }
}
