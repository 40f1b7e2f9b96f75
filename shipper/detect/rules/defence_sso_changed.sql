SELECT
    *,
    coalesce(nullIf(actorUserEmail, ''), nullIf(serviceAccountID, ''), nullIf(actorUserID, ''), nullIf(apiKeyID, ''), '(nobody)') AS entity,
    '' AS detail
FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
WHERE eventType IN ('tenant.sso_connection.created', 'tenant.sso_connection.updated', 'tenant.sso_connection.deleted')
