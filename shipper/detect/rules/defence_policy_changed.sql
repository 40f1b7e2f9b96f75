SELECT
    *,
    coalesce(nullIf(actorUserEmail, ''), nullIf(serviceAccountID, ''), nullIf(actorUserID, ''), nullIf(apiKeyID, ''), '(nobody)') AS entity,
    '' AS detail
FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
WHERE eventType IN ('tenant.session_policy.created', 'tenant.session_policy.updated', 'tenant.session_policy.deleted',
    'tenant.policy.updated', 'tenant.policy.deleted', 'tenant.policy.detached',
    'tenant.product_access_policy.updated', 'tenant.third_party_app_policy.updated')
