#!/bin/sh
# Makes the dataset, the table and the view in BigQuery, and a transfer that loads new objects from the bucket every
# hour. Needs Google's `bq` and the right to use it. Usage: setup.sh PROJECT BUCKET LOCATION
set -eu
project=$1 bucket=$2 location=$3
cd "$(dirname "$0")"
bq="bq --project_id=$project --location=$location"

$bq mk --force --dataset tenantauth
# A partition a day, kept for 400 days: change it to what you have to keep, and no longer.
$bq mk --force --table \
    --time_partitioning_field=time --time_partitioning_type=DAY --time_partitioning_expiration=34560000 \
    --clustering_fields=decision,reason,user \
    tenantauth.audit_lines audit.schema.json
$bq query --use_legacy_sql=false < audit.view.sql

# One wildcard is all that a load takes; it crosses the folders. Unknown keys are ignored, so that a newer gateway does
# not stop the loading; the objects in the bucket keep them. max_bad_records stays 0: a record that cannot be loaded is
# to be noticed.
$bq mk --transfer_config --data_source=google_cloud_storage --display_name='tenantauth audit' \
    --target_dataset=tenantauth --schedule='every 1 hours' --params='{
        "data_path_template": "gs://'"$bucket"'/audit/*.jsonl.gz",
        "destination_table_name_template": "audit_lines",
        "file_format": "JSON",
        "ignore_unknown_values": "true",
        "max_bad_records": "0",
        "write_disposition": "APPEND"
    }'
