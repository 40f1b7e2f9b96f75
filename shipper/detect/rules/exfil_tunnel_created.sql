SELECT
    *,
    coalesce(nullIf(actorUserEmail, ''), nullIf(serviceAccountID, ''), nullIf(actorUserID, ''), nullIf(apiKeyID, ''), '(nobody)') AS entity,
    '' AS detail
FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
WHERE eventType IN ('tunnel.created', 'tunnel.updated')
