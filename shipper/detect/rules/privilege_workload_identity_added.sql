-- Named after the provider where the event names it, else after what it is about.
SELECT *,
    coalesce(
        nullIf(JSONExtractString(arrayFirst(
            resource -> JSONExtractString(resource, 'type') = 'workload_identity_provider', resources), 'id'), ''),
        nullIf(JSONExtractString(arrayFirst(
            resource -> JSONExtractString(resource, 'type') LIKE 'workload_identity_%', resources), 'id'), ''),
        nullIf(actorUserEmail, ''), nullIf(serviceAccountID, ''), nullIf(actorUserID, ''), nullIf(apiKeyID, ''),
        '(nobody)') AS entity,
    '' AS detail
FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
WHERE eventType IN (
    'workload_identity_provider.created',
    'workload_identity_provider.updated',
    'workload_identity_provider_mapping.created',
    'workload_identity_provider_mapping.updated',
    'tenant.workload_identity.provider.created',
    'tenant.workload_identity.provider.updated',
    'tenant.workload_identity.mapping.created',
    'tenant.workload_identity.mapping.updated',
    'tenant.workload_identity.binding.created')
