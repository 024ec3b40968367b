-- The module's table: what `require "tenantauth"` gives. Called by the native part with its functions and the
-- other files of this folder, which are embedded beside it.

local native, chunks = ...

local loaded = {}

local function import(name)
    local module = loaded[name]
    if module == nil then
        module = chunks[name](native, import)
        loaded[name] = module
    end
    return module
end

-- Nothing else may be touched before the versions are known to fit: a clear message beats a strange one.
import("environment")

local worker = import("worker")
local enforce = import("enforce")
local exposition = import("exposition")
local grafana_gateway = import("grafana_gateway")

return {
    version = native.version,
    init_worker = worker.init,
    enforce = enforce.enforce,
    stamp_client_ip = grafana_gateway.stamp,
    metrics = exposition.metrics,
    status = exposition.status,
}
