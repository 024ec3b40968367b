-- metrics() and status(): what this module knows about itself, as answers to requests.

local native, import = ...

local options_of = import("options")
local worker = import("worker")

local ngx = ngx

local _M = {}


local function in_content_phase(name)
    if ngx.get_phase() ~= "content" then
        options_of.fail(2, name, "must be called in the content phase, not in " .. ngx.get_phase())
    end
    worker.ensure()
    worker.report()
end


-- Prometheus text exposition.
function _M.metrics()
    in_content_phase("metrics")
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
    ngx.header["Content-Type"] = "text/plain; version=0.0.4; charset=utf-8"
    ngx.print(native.exposition(table.concat(lines, "\n")))
end


-- JSON; 200 while a policy serves, 503 while none does. With `?ready` one word, for probes.
function _M.status()
    in_content_phase("status")
    local ready, keys = native.readiness() == native.READY, native.has_keys()
    if ("&" .. (ngx.var.args or ""):lower() .. "&"):find("&ready[=&]") then
        local good = ready and keys
        ngx.status = good and 200 or 503
        ngx.header["Content-Type"] = "text/plain; charset=utf-8"
        ngx.print(good and "ready\n" or "unready\n")
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
