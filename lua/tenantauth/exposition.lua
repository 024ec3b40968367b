-- metrics() and status(): what this module knows about itself, as answers to requests.

local native, import = ...

local options_of = import("options")
local worker = import("worker")
local grafana_gateway = import("grafana_gateway")

local ngx = ngx

local _M = {}


-- Returns whether this worker has no policy and is meant to have none: a Grafana Gateway.
local function only_stamps(name, options)
    if ngx.get_phase() ~= "content" then
        options_of.fail(2, name, "must be called in the content phase, not in " .. ngx.get_phase())
    end
    grafana_gateway.prepare(options, name)
    if not worker.has_policy() then
        return true
    end
    worker.ensure()
    worker.report()
    return false
end


-- With `?ready` in the query: the answer is one word, for probes. Returns whether it was.
local function answer_probe(is_ready)
    if not ("&" .. (ngx.var.args or ""):lower() .. "&"):find("&ready[=&]") then
        return false
    end
    ngx.status = is_ready and 200 or 503
    ngx.header["Content-Type"] = "text/plain; charset=utf-8"
    ngx.print(is_ready and "ready\n" or "unready\n")
    return true
end


-- Prometheus text exposition. `options`: those of `stamp_client_ip`, on a Grafana Gateway that may not have stamped
-- yet.
function _M.metrics(options)
    local stamps = only_stamps("metrics", options)
    ngx.header["Content-Type"] = "text/plain; version=0.0.4; charset=utf-8"
    if stamps then
        ngx.print(native.stampers_exposition())
        return
    end
    local lines = {}
    worker.each_counter(function(key, value)
        lines[#lines + 1] = string.format("%.17g %s", value, key)
    end)
    local revisions = {}
    for _, revision in pairs(worker.workers()) do
        revisions[revision] = (revisions[revision] or 0) + 1
    end
    for revision, count in pairs(revisions) do
        lines[#lines + 1] = count .. ' tenantauth_workers{revision="' .. revision .. '"}'
    end
    lines[#lines + 1] = worker.cache_entries() .. " tenantauth_token_cache_entries"
    ngx.print(native.exposition(table.concat(lines, "\n")))
end


-- JSON; 200 while a policy serves, or a Grafana Gateway can stamp, else 503. With `?ready` one word, for probes.
-- `options`: as for `metrics`.
function _M.status(options)
    if only_stamps("status", options) then
        local can_stamp = native.can_stamp()
        if not answer_probe(can_stamp) then
            ngx.status = can_stamp and 200 or 503
            ngx.header["Content-Type"] = "application/json"
            ngx.print(native.stampers_status(), "\n")
        end
        return
    end
    local ready, keys = native.readiness() == native.READY, native.has_keys()
    if answer_probe(ready and keys) then
        return
    end
    local workers = {}
    for pid, revision in pairs(worker.workers()) do
        local entries, uptime = worker.facts(pid)
        workers[#workers + 1] = string.format("%d %d %d %s", pid, entries, uptime, revision)
    end
    table.sort(workers)
    ngx.status = ready and 200 or 503
    ngx.header["Content-Type"] = "application/json"
    ngx.print(native.status(table.concat(workers, "\n")), "\n")
end


return _M
