function "shout" {
  params = [text]
  result = "${upper(text)}!"
}
function "sum" {
  params          = [first]
  variadic_params = rest
  result          = length(rest) == 0 ? first : first + rest[0]
}
function "twice" {
  params = [text]
  result = join(" ", [shout(text), shout(text)])
}

target "numbers" {
  args = {
    absolute = absolute(-3.5)
    add      = add(123, 1)
    tenth    = 0.1 + 0.2
    ceil     = ceil(1.2)
    floor    = floor(-1.2)
    int      = int(2.9)
    divide   = divide(10, 4)
    modulo   = modulo(10, 3)
    negative = -10 % 3
    multiply = multiply(6, 7)
    subtract = subtract(1, 2)
    negate   = negate(5)
    min      = min(3, 1, 2)
    max      = max(3, 1, 2)
    pow      = pow(2, 10)
    log      = log(8, 2)
    signum   = signum(-9)
    parseint = parseint("ff", 16)
    big      = 4000000000 * 4000000000
    operators = jsonencode([1 < 2, 2 <= 2, 3 > 4, 4 >= 4, 1 == 1.0, "1" == 1, 1 != 2, true && false, true || false, !true])
  }
}

target "strings" {
  args = {
    upper     = upper("héllo")
    lower     = lower("ABC")
    title     = title("hello wide world")
    chomp     = chomp("line\n\n")
    indent    = indent(2, "a\nb")
    replace   = replace("a.b.c", ".", "-")
    reverse   = reverse("abc")
    split     = jsonencode(split(",", "a,b,c"))
    join      = join("-", ["a", "b"], ["c"])
    strlen    = strlen("héllo")
    substr    = substr("hello", 1, 3)
    substrend = substr("hello", -3, -1)
    trim      = trim("xxhixx", "x")
    trimprefix = trimprefix("v1.2", "v")
    trimsuffix = trimsuffix("file.txt", ".txt")
    trimspace = trimspace("  x  ")
    format    = format("%s is %d, %05.1f, %q, %v, %#v, %x", "it", 5, 3.14159, "q", ["a", 1], "s", 255)
    formatlist = jsonencode(formatlist("%s-%s", ["a", "b"], "x"))
    sanitize  = sanitize("a/b:c.d")
    basename  = basename("/a/b/c.txt")
    dirname   = dirname("/a/b/c.txt")
    shout     = shout("hey")
    twice     = twice("ho")
    sum       = "${sum(1)} ${sum(1, 2)}"
    heredoc   = <<-EOT
      indented
        more
      back ${upper("x")}
    EOT
    directive = "%{ for i, x in ["a", "b"] }${i}=${x};%{ endfor }%{ if true }yes%{ else }no%{ endif }"
    trimmed   = "a ${~ "b" ~} c"
    escapes   = "tab\tquote\" \u00e9 $${x}"
  }
}

target "collections" {
  args = {
    chunklist = jsonencode(chunklist(["a", "b", "c"], 2))
    coalesce  = coalesce(null, "x", "y")
    coalescelist = jsonencode(coalescelist([], ["z"]))
    compact   = jsonencode(compact(["a", "", "b"]))
    concat    = jsonencode(concat(["a"], [1]))
    contains  = contains(["a", "b"], "b")
    distinct  = jsonencode(distinct(["a", "b", "a"]))
    element   = element(["a", "b", "c"], 4)
    flatten   = jsonencode(flatten([["a"], ["b", ["c"]]]))
    hasindex  = hasindex(["a"], 1)
    index     = index(["a", "b"], 1)
    indexof   = indexof(["a", "b"], "b")
    keys      = jsonencode(keys({ b = 1, a = 2 }))
    values    = jsonencode(values({ b = 1, a = 2 }))
    length    = length([1, 2, 3])
    lookup    = lookup({ a = "x" }, "b", "default")
    merge     = jsonencode(merge({ a = 1, b = 2 }, { b = 3 }))
    range     = jsonencode(range(1, 10, 3))
    rangedown = jsonencode(range(3, 0))
    reverselist = jsonencode(reverselist(["a", "b"]))
    slice     = jsonencode(slice(["a", "b", "c"], 1, 3))
    sort      = jsonencode(sort(["c", "a", "b"]))
    zipmap    = jsonencode(zipmap(["a", "b"], [1, 2]))
    setproduct = jsonencode(setproduct(["a", "b"], ["x", "y"]))
    setunion  = jsonencode(setunion(["b", "a"], ["c", "a"]))
    setintersection = jsonencode(setintersection(["a", "b"], ["b", "c"]))
    setsubtract = jsonencode(setsubtract(["a", "b"], ["b"]))
    setsymmetricdifference = jsonencode(setsymmetricdifference(["a", "b"], ["b", "c"]))
    sethaselement = sethaselement(["a"], "a")
    for       = jsonencode([for i, v in ["a", "b", "c"] : "${i}${v}" if v != "b"])
    forobject = jsonencode({ for k, v in { a = 1, b = 2 } : upper(k) => v + 1 })
    grouped   = jsonencode({ for v in ["ax", "by", "az"] : substr(v, 0, 1) => v... })
    splat     = jsonencode([{ n = 1 }, { n = 2 }][*].n)
    attrsplat = jsonencode([{ n = { m = 1 } }].*.n.m)
    expanded  = max([1, 5, 2]...)
    nested    = { a = { b = ["c"] } }.a.b[0]
  }
}

target "encoding" {
  args = {
    base64encode = base64encode("hello?")
    base64decode = base64decode("aGVsbG8/")
    urlencode    = urlencode("a b&c=d/é")
    jsonencode   = jsonencode({ b = [1, 2.5, true, null], a = "<x>" })
    jsondecode   = jsondecode("{\"a\": [1, \"x\"]}").a[1]
    csvdecode    = jsonencode(csvdecode("a,b\n1,2\n3,\"4,5\"\n"))
    md5          = md5("hello")
    sha1         = sha1("hello")
    sha256       = sha256("hello")
    sha512       = sha512("hello")
    uuidv5       = uuidv5("dns", "example.com")
    bcrypt       = length(split("$", bcrypt("hello", 4)))
    uuidv4       = strlen(uuidv4())
    convert      = jsonencode(convert(["1", 2], list(number)))
    regex        = regex("[a-z]+", "123abc")
    regexgroups  = jsonencode(regex("(\\w)(\\d)", "a1"))
    regexnamed   = jsonencode(regex("(?P<letter>[a-z])(?P<digit>\\d)", "a1"))
    regexall     = jsonencode(regexall("[a-z]", "a1b2"))
    regex_replace = regex_replace("hello world", "o(.)?", "0$${1}")
    cidrhost     = cidrhost("10.12.127.0/20", 268)
    cidrnetmask  = cidrnetmask("172.16.0.0/12")
    cidrsubnet   = cidrsubnet("172.16.0.0/12", 4, 2)
    cidrsubnet6  = cidrsubnet("fd00:fd12:3456:7890::/56", 16, 162)
    cidrsubnets  = jsonencode(cidrsubnets("10.1.0.0/16", 4, 4, 8, 4))
    semvercmp    = "${semvercmp("1.2.3", ">= 1.2, < 2")} ${semvercmp("v2.0.0-rc1", "^2.0")} ${semvercmp("1.5", "~1.4 || 1.5.x")}"
  }
}

target "dates" {
  args = {
    timeadd    = timeadd("2024-02-28T23:30:00Z", "24h45m")
    timeaddz   = timeadd("2024-02-28T23:30:00+02:00", "-1.5s")
    formatdate = formatdate("EEEE, DD-MMM-YY hh:mm:ss ZZZ 'at' H AA", "2024-03-05T15:04:05Z")
    formatzone = formatdate("YYYY-MM-DD'T'hh:mm:ssZ", "2024-03-05T15:04:05-07:00")
    formattimestamp = formattimestamp("YYYYMMDD", 1709650000)
    unix       = formattimestamp("X", "2024-03-05T15:04:05Z")
    parsed     = jsonencode(unixtimestampparse(1709650000))
    timestamp  = strlen(timestamp())
  }
}
