-- Headers that are meant for the next hop alone. A variable that nginx evaluated before (`set`, `if`) keeps their old
-- value, which no removal undoes; http.conf has variables that show it.

local _, import = ...

local remove = import("request").remove

local ngx_var = ngx.var
local set_header = ngx.req.set_header
local match = string.match

local _M = {}


-- Makes `Connection` of request `r` one line of these names, or none where they are empty. Returns false where
-- $http_connection is known to keep another value.
function _M.set_connection(r, names)
    -- First of all: nginx's Lua module sets the first of several lines alone.
    remove(r, "Connection", 10)
    if names ~= "" then
        set_header("Connection", names)
    end
    local known = ngx_var.tenantauth_http_connection
    return known == nil or known == names
end


-- Whether the connection of this request can be upgraded. HTTP/2 and HTTP/3 cannot, and of HTTP/1.0 an offer is
-- ignored; nginx looks at `Upgrade` all the same.
function _M.can_upgrade()
    return match(ngx_var.server_protocol or "", "^HTTP/1%.[1-9]") ~= nil
end


-- Declines the offer of request `r` to upgrade. Returns false where $http_upgrade keeps its value, or may keep it.
function _M.decline_upgrade(r)
    remove(r, "Upgrade", 7)
    remove(r, "HTTP2-Settings", 14)
    return ngx_var.tenantauth_http_upgrade == ""
end


return _M
