SELECT *, serviceAccountID AS entity, '' AS detail
FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
WHERE eventType IN ('api_key.created', 'tenant.project_api_key.created', 'tenant.admin_api_key.created')
    AND serviceAccountID != ''
