SELECT
    * EXCEPT (provider),
    coalesce(nullIf(actorUserEmail, ''), nullIf(serviceAccountID, ''), nullIf(actorUserID, ''), nullIf(apiKeyID, ''), '(nobody)') AS entity,
    if(provider = '', '', concat('provider: ', leftUTF8(provider, 200))) AS detail
FROM
(
    SELECT *, JSONExtractRaw(rawLog, eventType, 'data', 'provider') AS provider
    FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
    WHERE eventType IN ('external_storage.registered', 'external_storage.removed', 'external_key.registered', 'external_key.removed')
)
