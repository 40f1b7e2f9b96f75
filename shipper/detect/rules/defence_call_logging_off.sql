SELECT
    * EXCEPT (logging),
    coalesce(nullIf(actorUserEmail, ''), nullIf(serviceAccountID, ''), nullIf(actorUserID, ''), nullIf(apiKeyID, ''), '(nobody)') AS entity,
    concat('api_call_logging: ', logging) AS detail
FROM
(
    SELECT
        *,
        coalesce(
            nullIf(JSONExtractString(rawLog, eventType, 'changes_requested', 'api_call_logging'), ''),
            JSONExtractString(rawLog, eventType, 'data', 'api_call_logging')) AS logging
    FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
    WHERE eventType = 'organization.updated'
)
WHERE has({logging_values:Array(String)}, logging)
