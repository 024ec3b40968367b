-- The request's headers, looked through once without making a Lua string of each.
--
-- ngx.req.get_headers() makes two strings a header and a table; with 20 headers that alone costs more than
-- everything else here. The functions beneath it are called instead, as lua-resty-core does, and only the few
-- headers that matter become strings.

local ffi = require "ffi"
local base = require "resty.core.base"
require "resty.core.request"

local C = ffi.C
local ffi_str = ffi.string
local ffi_cast = ffi.cast
local bit = require "bit"
local band, bor = bit.band, bit.bor
local sub = string.sub
local get_string_buf = base.get_string_buf

local elements_type = ffi.typeof("ngx_http_lua_ffi_table_elt_t *")
local element_size = ffi.sizeof("ngx_http_lua_ffi_table_elt_t")
local truncated = ffi.new("int[1]")

-- What nginx's Lua interface shows by default. More is a denial: padding could hide a header from us that still
-- goes upstream.
local MAX_HEADERS = 100

local _M = {}


local SHAPES = 8192
local shapes_type = ffi.typeof("uint8_t[?]")

-- A small number that tells most names apart, from length, first and last byte.
local function shape_of(length, first, last)
    return band(length * 256 + first * 32 + last, SHAPES - 1)
end


-- A set of names to look for. `roles`: lower-case name -> anything but nil.
function _M.plan(roles)
    local shapes = shapes_type(SHAPES)
    for name in pairs(roles) do
        shapes[shape_of(#name, name:byte(1), name:byte(#name))] = 1
    end
    return { shapes = shapes, roles = roles }
end


-- Reads the header list of request `r`. Returns the elements and their number, or nil where there are too many
-- or they cannot be read.
function _M.read(r)
    local count = C.ngx_http_lua_ffi_req_get_headers_count(r, MAX_HEADERS, truncated)
    if count < 0 or truncated[0] ~= 0 then
        return nil
    end
    if count == 0 then
        return false, 0
    end
    local elements = ffi_cast(elements_type, get_string_buf(element_size * count))
    -- 0: names in lower case.
    if C.ngx_http_lua_ffi_req_get_headers(r, elements, count, 0) ~= 0 then
        return nil
    end
    return elements, count
end


-- The role of element `index`, and its lower-case name. Of a name that the plan does not know the role is nil; the
-- name is then given only if it begins with `x-loki-` or `x-mimir-`.
function _M.role(plan, elements, index)
    local key = elements[index].key
    local length = key.len
    if length == 0 then
        return nil
    end
    local data = key.data
    local first = data[0]
    if plan.shapes[band(length * 256 + first * 32 + data[length - 1], SHAPES - 1)] ~= 0 then
        local name = ffi_str(data, length)
        local role = plan.roles[name]
        if role then
            return role, name
        end
    end
    -- "x" and "-", then "l" or "m".
    if first == 120 and length >= 7 and data[1] == 45 and (data[2] == 108 or data[2] == 109) then
        local name = ffi_str(data, length)
        if sub(name, 1, 7) == "x-loki-" or sub(name, 1, 8) == "x-mimir-" then
            return nil, name
        end
    end
    return nil
end


-- What an Authorization header may hold for a service account.
local BEARER, BASIC = 1, 2
_M.BEARER, _M.BASIC = BEARER, BASIC
-- No service account needs more; the engine looks at no longer one either. Most access tokens are longer.
local MAX_SERVICE_VALUE = 1024


-- BEARER where element `index` is `Bearer` with a service token, BASIC where it is `Basic` with whatever. Byte by byte,
-- since Grafana sends an access token with nearly every request, of which no string should be made.
function _M.service_scheme(elements, index)
    local value = elements[index].value
    local length, data = value.len, value.data
    -- Each letter in lower case: "b", then "e" or "a".
    if length < 8 or length > MAX_SERVICE_VALUE or bor(data[0], 32) ~= 98 then
        return nil
    end
    local second = bor(data[1], 32)
    if second == 101 then
        -- Behind "bearer " the "t" or another blank; there most tokens end being looked at.
        local behind = data[7]
        if behind ~= 116 and behind ~= 32 and behind ~= 9 then
            return nil
        end
        -- "arer "
        if bor(data[2], 32) ~= 97 or bor(data[3], 32) ~= 114 or bor(data[4], 32) ~= 101 or bor(data[5], 32) ~= 114
            or data[6] ~= 32
        then
            return nil
        end
        local from = 7
        while from < length and (data[from] == 32 or data[from] == 9) do
            from = from + 1
        end
        -- "tas_"
        if length - from >= 4 and data[from] == 116 and data[from + 1] == 97 and data[from + 2] == 115
            and data[from + 3] == 95
        then
            return BEARER
        end
    elseif second == 97 then
        -- "sic "
        if bor(data[2], 32) == 115 and bor(data[3], 32) == 105 and bor(data[4], 32) == 99 and data[5] == 32 then
            return BASIC
        end
    end
    return nil
end


function _M.value(elements, index)
    local value = elements[index].value
    return ffi_str(value.data, value.len)
end


return _M
