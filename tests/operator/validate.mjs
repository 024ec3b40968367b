// Validates objects of the Prometheus Operator and of the Gateway API, a JSON array on standard input, by their own
// types. Prints one line for each that is not valid, and one for each unknown key: what a cluster would drop without a
// word.
import { HTTPRoute } from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1";
import { PrometheusRule, ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";
import { readFileSync } from "node:fs";

const kinds = { HTTPRoute, PrometheusRule, ServiceMonitor };
const keys = {
  HTTPRoute: ["parentRefs", "hostnames", "rules"],
  ServiceMonitor: ["selector", "endpoints", "namespaceSelector", "jobLabel", "targetLabels"],
  PrometheusRule: ["groups"],
  endpoint: ["port", "path", "interval", "scheme", "scrapeTimeout", "relabelings", "metricRelabelings"],
  route: ["backendRefs", "matches", "filters", "timeouts"],
  group: ["name", "rules", "interval"],
  rule: ["alert", "expr", "for", "labels", "annotations"],
};
const known = (object, list, place) => {
  for (const key of Object.keys(object)) {
    if (!list.includes(key)) console.log(`${place}: unknown key ${key}`);
  }
};
for (const object of JSON.parse(readFileSync(0, "utf8"))) {
  const place = `${object.kind} ${object.metadata.name}`;
  try {
    new kinds[object.kind](object).validate();
  } catch (error) {
    console.log(`${place}: ${error.message}`);
  }
  known(object.spec, keys[object.kind], place);
  for (const rule of object.spec.rules ?? []) known(rule, keys.route, place);
  for (const endpoint of object.spec.endpoints ?? []) known(endpoint, keys.endpoint, place);
  for (const group of object.spec.groups ?? []) {
    known(group, keys.group, place);
    for (const rule of group.rules) known(rule, keys.rule, `${place} ${rule.alert}`);
  }
}
