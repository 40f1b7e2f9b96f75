SELECT
    *,
    coalesce(nullIf(actorUserEmail, ''), nullIf(serviceAccountID, ''), nullIf(actorUserID, ''), nullIf(apiKeyID, ''), '(nobody)') AS entity,
    '' AS detail
FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
WHERE eventType IN ('tenant.resource_share_grant.created', 'tenant.resource_share_grant.updated', 'tenant.resource_share_grant.accepted')
