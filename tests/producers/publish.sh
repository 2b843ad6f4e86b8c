send() {
  curl --fail-with-body --silent --show-error "$TUNEWHEEL_INGEST_URL/v1/$1" -H "Authorization: Bearer $TUNEWHEEL_API_KEY" \
    "${@:2}"
}
json="Content-Type: application/json"
send tickets -H "$json" -d '{"project": "helpdesk", "ticket_id": "T-1", "body": "My locker will not open."}'
send documents -H "$json" -d '{"project": "helpdesk", "document_id": "lockers.md", "content": "Press twice."}'
send examples -H "$json" -d '{"project": "helpdesk", "example_id": "E-1", "input": "Is it a bell?", "output": "No."}'
send "documents/old.md?project=helpdesk&reason=replaced" -X DELETE
send erasures -H "$json" -d '{"project": "helpdesk", "erasure_id": "L-1", "customer": "person-1", "requested_by": "privacy"}'
