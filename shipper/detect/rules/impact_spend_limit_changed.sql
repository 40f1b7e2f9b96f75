SELECT
    *,
    coalesce(nullIf(actorUserEmail, ''), nullIf(serviceAccountID, ''), nullIf(actorUserID, ''), nullIf(apiKeyID, ''), '(nobody)') AS entity,
    '' AS detail
FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
WHERE eventType IN ('rate_limit.deleted', 'tenant.billing.overage_limit.updated',
    'tenant.usage_limit.workspace.updated', 'tenant.usage_limit.group.updated', 'tenant.usage_limit.user.updated')
