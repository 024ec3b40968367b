-- A request as the engine wants it: pointers into nginx's memory, of which no Lua string is made. With 20 headers,
-- ngx.req.get_headers() alone costs more than everything else here.
--
-- The functions beneath ngx.req and ngx.var are called as lua-resty-core calls them, which has declared them. The
-- structures are those of `src/lua/ffi.rs`.

local native = ...

local ffi = require "ffi"
local base = require "resty.core.base"
require "resty.core.request"
require "resty.core.var"

local C = ffi.C
local ffi_str = ffi.string
local null = ffi.new("void *")
local get_method = ngx.req.get_method

-- More than what nginx's Lua interface shows by default is a denial: padding could hide a header from us that still
-- goes upstream.
local MAX_HEADERS = native.max_headers

local text_type = ffi.typeof("struct { const unsigned char *data; size_t length; }")
local request_type = ffi.typeof([[struct {
    uint32_t server;
    int32_t headers_count;
    const ngx_http_lua_ffi_table_elt_t *headers;
    $ method, request_uri, uri, remote_addr, peer;
    uint32_t upgradable;
}]], text_type)
local answer_type = ffi.typeof([[struct {
    double code, nanoseconds;
    uint32_t bucket, cookies_to;
    $ record, tenants, cookies;
    uint32_t removed_count;
    uint16_t removed[$];
}]], text_type, MAX_HEADERS)

-- What the engine was built for; anything else would be memory read as what it is not.
assert(ffi.sizeof("ngx_http_lua_ffi_table_elt_t") == native.header_size and ffi.sizeof(request_type) == native.request_size
    and ffi.sizeof(answer_type) == native.answer_size
    and ffi.offsetof(answer_type, "removed") == native.removed_offset,
    "tenantauth: the structures of this nginx are laid out in another way")

local decide = ffi.cast(ffi.typeof("void (*)(const $ *, $ *)", request_type, answer_type),
    ffi.cast("uintptr_t", native.address))

-- One of each for all requests: nothing yields between its filling and its use.
local request, answer = request_type(), answer_type()
local headers = ffi.new("ngx_http_lua_ffi_table_elt_t[?]", MAX_HEADERS)
local truncated = ffi.new("int[1]")
local value, length = ffi.new("char *[1]"), ffi.new("size_t[1]")
local lower_case, problem = ffi.new("unsigned char[64]"), ffi.new("char *[1]")
local PROBLEM_SIZE = 256
-- Not a number, as the engine's own answer where it has none.
local NO_ANSWER = 0 / 0
local problem_text = ffi.new("unsigned char[?]", PROBLEM_SIZE)

local _M = { answer = answer }


-- Sets a text of the request to the value of a variable; false where nginx knows none of that name, or it has no value.
local function take_variable(r, name, text)
    if C.ngx_http_lua_ffi_var_get(r, name, #name, lower_case, 0, value, length, problem) ~= 0 then
        text.data = nil
        return false
    end
    text.data = value[0]
    text.length = length[0]
    return true
end


-- Reads the header lines of request `r` into `headers`, names in lower case. Returns how many there are, or -1 where
-- they cannot be read whole.
local function read_headers(r)
    local count = C.ngx_http_lua_ffi_req_get_headers_count(r, MAX_HEADERS, truncated)
    if count < 0 or count > MAX_HEADERS or truncated[0] ~= 0 then
        return -1
    end
    -- 0: names in lower case.
    if count ~= 0 and C.ngx_http_lua_ffi_req_get_headers(r, headers, count, 0) ~= 0 then
        return -1
    end
    return count
end


-- Asks the engine about request `r`; the answer stands in `answer` until the next call. `with_remote_addr`: give
-- $remote_addr as well. `upgradable`: what an `Upgrade` header can be here, 0 where the engine has not asked.
function _M.decide(r, server, with_remote_addr, upgradable)
    local method = get_method()
    request.server = server
    request.upgradable = upgradable
    request.headers = headers
    request.headers_count = read_headers(r)
    take_variable(r, "request_uri", request.request_uri)
    take_variable(r, "uri", request.uri)
    request.remote_addr.data = nil
    if with_remote_addr then
        take_variable(r, "remote_addr", request.remote_addr)
    end
    -- The realip module, where it is compiled in, knows who really connected.
    if not take_variable(r, "realip_remote_addr", request.peer) then
        take_variable(r, "remote_addr", request.peer)
    end
    request.method.data = method
    request.method.length = #method
    -- What is not written anew is no decision: an answer that stays away must not be the last request's.
    answer.code = NO_ANSWER
    decide(request, answer)
    -- A pointer into a Lua string is not kept longer than that string.
    request.method.data = nil
    return answer.code, answer.nanoseconds, answer.bucket
end


-- Removes every header of a name, as ngx.req.clear_header does, which wants a Lua string of it.
local function remove(r, name, name_length)
    local result = C.ngx_http_lua_ffi_req_set_header(r, name, name_length, nil, 0, nil, 0, 1, problem)
    -- Declined: the request is of HTTP/0.9, which has no headers.
    if result ~= base.FFI_OK and result ~= base.FFI_DECLINED then
        error("a header cannot be removed: "
            .. (result == base.FFI_ERROR and ffi_str(problem[0]) or tostring(result)))
    end
end


_M.remove = remove


local function remove_numbered(r, index)
    local name = headers[answer.removed[index]].key
    remove(r, name.data, name.len)
end


local function remove_further(r, from, count)
    for index = from, count - 1 do
        remove_numbered(r, index)
    end
end


-- Removes the header lines that the answer names, and all others of their names. Written out as far as Grafana goes:
-- LuaJIT compiles a request as a whole only if no loop is run in it, and tries again and again if one is.
function _M.remove_headers(r)
    local count = answer.removed_count
    if count > 0 then
        remove_numbered(r, 0)
    end
    if count > 1 then
        remove_numbered(r, 1)
    end
    if count > 2 then
        remove_numbered(r, 2)
    end
    if count > 3 then
        remove_numbered(r, 3)
    end
    if count > 4 then
        remove_further(r, 4, count)
    end
end


-- Removes all cookies.
function _M.remove_cookies(r)
    remove(r, "Cookie", 6)
end


-- All Cookie lines and all Connection lines, each joined by newlines; nil where the headers cannot be read whole.
function _M.cookie_and_connection_lines(r)
    local count = read_headers(r)
    if count < 0 then
        return nil
    end
    local cookies, connections
    for index = 0, count - 1 do
        local name = headers[index].key
        local line = headers[index].value
        if name.len == 6 and ffi_str(name.data, 6) == "cookie" then
            line = ffi_str(line.data, line.len)
            cookies = cookies and cookies .. "\n" .. line or line
        elseif name.len == 10 and ffi_str(name.data, 10) == "connection" then
            line = ffi_str(line.data, line.len)
            connections = connections and connections .. "\n" .. line or line
        end
    end
    return cookies or "", connections
end


-- A text of the answer as a string; nil for none.
function _M.string(text)
    if text.data == null then
        return nil
    end
    return ffi_str(text.data, text.length)
end


-- Sets a variable to a text of the answer, of which nginx makes a copy; false where it has no such variable.
function _M.set_variable(r, name, text)
    length[0] = PROBLEM_SIZE
    return C.ngx_http_lua_ffi_var_set(r, name, #name, lower_case, text.data, text.length, problem_text, length) == 0
end


return _M
