#!/bin/sh
# Makes what must not lie in a repository: a certificate for Keycloak, the keys of the signed cookie, the tokens of
# service accounts; and the policy with their hashes.
#
#   setup.sh POLICY-IN POLICY-OUT TLS-OUT TOKENS-OUT
set -eu
from=$1 policy=$2 tls=$3 tokens=$4
mkdir -p "$policy/owners.d" "$tls" "$tokens"

# 32 random bytes, as base64url without padding.
secret() { openssl rand 32 | openssl base64 -A | tr '+/' '-_' | tr -d '='; }

if [ ! -s "$tls/keycloak.pem" ]; then
    work=$(mktemp -d)
    openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj "/CN=demo CA" \
        -keyout "$work/ca.key" -out "$tls/ca.pem" 2>/dev/null
    openssl req -new -newkey rsa:2048 -nodes -subj /CN=keycloak \
        -keyout "$tls/keycloak.key" -out "$work/keycloak.csr" 2>/dev/null
    printf 'basicConstraints=CA:FALSE\nsubjectAltName=DNS:keycloak,DNS:localhost\n' > "$work/extensions"
    openssl x509 -req -days 30 -in "$work/keycloak.csr" -CA "$tls/ca.pem" -CAkey "$work/ca.key" -CAcreateserial \
        -CAserial "$work/serial" -extfile "$work/extensions" -out "$tls/keycloak.pem" 2>/dev/null
    rm -rf "$work"
fi
for account in agent alerting; do
    [ -s "$tokens/$account" ] || printf 'tas_%s' "$(secret)" > "$tokens/$account"
done
[ -s "$policy/client-ip.keys" ] || printf 'demo:%s\n' "$(openssl rand 32 | openssl base64 -A)" > "$policy/client-ip.keys"

sha256() { openssl dgst -sha256 -r "$1" | cut -d ' ' -f 1; }
cp "$tls/ca.pem" "$policy/ca.pem"
cp "$from"/owners.d/*.yaml "$policy/owners.d/"
sed "s/@AGENT@/$(sha256 "$tokens/agent")/; s/@ALERTING@/$(sha256 "$tokens/alerting")/" "$from/policy.yaml" \
    > "$policy/policy.yaml.new"
mv "$policy/policy.yaml.new" "$policy/policy.yaml"

# The users of the containers read them: 10101 is tenantauth's; Keycloak, Grafana and Alloy have others each.
chmod 0644 "$policy/policy.yaml" "$policy/ca.pem" "$policy"/owners.d/*.yaml "$tls"/* "$tokens"/*
chmod 0640 "$policy/client-ip.keys"
[ "$(id -u)" != 0 ] || chown 0:10101 "$policy/client-ip.keys"
