-- The Grafana Gateway: writes the client's address into the request that goes to Grafana, as its only cookie of
-- that name.

local native, import = ...

local options_of = import("options")
local header_lines = import("request").cookie_and_connection_lines
local hop_by_hop = import("hop_by_hop")
local set_connection, decline_upgrade = hop_by_hop.set_connection, hop_by_hop.decline_upgrade
local can_upgrade = hop_by_hop.can_upgrade
local denial = import("denial")
local worker = import("worker")
local base = require "resty.core.base"

local ngx = ngx
local ngx_log = ngx.log
local ngx_var = ngx.var

local _M = {}

local FIRST_LOAD_WAIT = 2
-- How many functions of ours a mistake is found beneath, at the least: `stamp`, `pcall`, `run`.
local LEVEL = 3
local stampers = {}


local function cookie_name(value)
    local problem = options_of.nonempty_string(value)
    if problem then
        return problem
    end
    if not native.is_cookie_name(value) then
        return "is no cookie name"
    end
end


local function ttl(value)
    if type(value) ~= "number" then
        return "must be a number of seconds, got " .. type(value)
    end
    if value ~= math.floor(value) or value < 1 or value > 600 then
        return "must be a whole number of 1 to 600 seconds"
    end
end


local STAMP_OPTIONS = {
    cookie = cookie_name,
    keys_file = options_of.nonempty_string,
    unsigned = "boolean",
    ttl = ttl,
}


local function stamper_of(options, name)
    name = name or "stamp_client_ip"
    options = options_of.check(LEVEL + 1, name, options, STAMP_OPTIONS)
    local keys_file = options.keys_file
    if keys_file and options.unsigned then
        options_of.fail(LEVEL + 1, name, "options `keys_file` and `unsigned` exclude each other")
    end
    if not keys_file and not options.unsigned then
        options_of.fail(LEVEL + 1, name, "option `keys_file` is required, or `unsigned = true`")
    end
    local cookie, seconds = options.cookie or "Client_Ip", options.ttl or 300
    local key = cookie .. "\0" .. (keys_file or "") .. "\0" .. seconds
    local stamper = stampers[key]
    if not stamper then
        local problem
        stamper, problem = native.stamper(cookie, keys_file, seconds)
        if not stamper then
            ngx_log(ngx.ERR, "tenantauth: ", problem)
            return nil
        end
        stampers[key] = stamper
    end
    return stamper
end


-- Waits for the first reading of a stamper's keys, without blocking the worker.
local function wait_for(stamper)
    local waited = 0
    while native.stamper_is_loading(stamper) and waited < FIRST_LOAD_WAIT do
        ngx.sleep(0.01)
        waited = waited + 0.01
    end
end


-- Logs what a stamper's thread has to say.
local function report(stamper)
    local level, message = native.stamper_message(stamper)
    if level then
        worker.log(level, message)
    end
end


-- For metrics() and status(): makes sure that this worker knows the stamper of these options, where there are any, and
-- logs what all of them have to say.
function _M.prepare(options, name)
    if options ~= nil then
        local stamper = stamper_of(options, name)
        if stamper then
            wait_for(stamper)
        end
    end
    for number = 0, native.stampers() - 1 do
        report(number)
    end
end


local function fail(reason, cookies)
    ngx_log(ngx.ERR, "tenantauth: the client address could not be stamped: ", tostring(reason))
    if cookies and cookies ~= "" then
        ngx.req.set_header("Cookie", cookies)
    else
        ngx.req.clear_header("Cookie")
    end
    -- An error page may go to Grafana.
    ngx.req.clear_header("Connection")
    return denial.send(503, "internal_error", "503 Service Unavailable: the client address could not be recorded",
        false)
end


-- Returns nothing where the request is stamped, otherwise what was wrong and its other cookies. Whatever may raise an
-- error is in here.
local function run(options)
    local stamper = stamper_of(options)
    local phase = ngx.get_phase()
    if phase ~= "rewrite" and phase ~= "access" then
        options_of.fail(LEVEL, "stamp_client_ip", "must be called in the rewrite phase, not in " .. phase)
    end
    if not stamper then
        return "it could not be set up"
    end
    -- nginx sends it on as HTTP/1.x, without what cannot be set here. (Of versions that are unknown to it, 1.2 or 3, the
    -- Lua module says nil; they have headers.)
    if ngx.req.http_version() == 0.9 then
        return "a request of HTTP/0.9 has no headers"
    end
    local r = base.get_request()
    local lines, connection = header_lines(r)
    if not lines then
        return "there are too many request headers"
    end
    local upgrade = ngx_var.http_upgrade
    local is_websocket = upgrade ~= nil and upgrade:lower() == "websocket" and can_upgrade()
    -- Whatever else is offered would go through a tunnel in which nothing is stamped.
    if upgrade and not is_websocket then
        decline_upgrade(r)
    end
    -- Go's reverse proxies, as Grafana's is one, remove the headers that their client lists in `Connection`: those too
    -- that Grafana has set since.
    if connection then
        local upgrades, names_others = native.connection_of(connection)
        if not set_connection(r, upgrades and is_websocket and "upgrade" or "") and names_others then
            return "$http_connection was evaluated before `stamp_client_ip` and keeps names that Grafana would act upon"
        end
    end
    wait_for(stamper)
    report(stamper)
    local line, cookies, problem = native.stamp(stamper, lines, ngx_var.remote_addr or "")
    if not line then
        return problem or "no cookie could be made", cookies
    end
    ngx.req.set_header("Cookie", line)
end


function _M.stamp(options)
    local ok, problem, cookies = pcall(run, options)
    if not ok and not denial.can_be_sent() then
        return error(problem, 0)
    end
    if problem then
        return fail(problem, cookies)
    end
end


return _M
