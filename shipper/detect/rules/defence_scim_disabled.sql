SELECT *, sourceID AS entity, '' AS detail
FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
WHERE eventType IN ('scim.disabled', 'tenant.scim.deletion.requested')
