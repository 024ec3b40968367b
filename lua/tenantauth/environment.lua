-- What the module needs of nginx, checked once at `require`.

local jit_ok, jit = pcall(require, "jit")
if not jit_ok or not jit.version_num then
    error("tenantauth: LuaJIT is required")
end

if not ngx or not ngx.config then
    error("tenantauth: it runs inside nginx: OpenResty, or nginx with ngx_http_lua_module")
end

local NEEDED = 10023
if ngx.config.ngx_lua_version < NEEDED and not (ngx.config.nginx_version >= 1021004 and ngx.config.ngx_lua_version >= 10021) then
    error("tenantauth: ngx_http_lua_module 0.10.23 or OpenResty 1.21.4 or later is required, got "
        .. tostring(ngx.config.ngx_lua_version))
end

local core_ok, core = pcall(require, "resty.core")
if not core_ok then
    error("tenantauth: lua-resty-core is required: " .. tostring(core))
end

return true
