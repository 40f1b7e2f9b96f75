SELECT
    * EXCEPT (logging),
    coalesce(nullIf(actorUserEmail, ''), nullIf(serviceAccountID, ''), nullIf(actorUserID, ''), nullIf(apiKeyID, ''), '(nobody)') AS entity,
    concat('api_call_logging: ', logging) AS detail
FROM
(
    WITH
        -- JSON functions read nothing of a document with one odd byte or number in it: this is the repaired one.
        if(isValidJSON(rawLog), rawLog, replaceRegexpAll(
            replaceRegexpAll(toValidUTF8(rawLog), '\\\\u[dD][89a-fA-F][0-9a-fA-F]{2}', '\\\\ufffd'),
            '([:,\\[]\\s*-?)([0-9.]+[eE]\\+?[0-9]{3,}|[0-9]{20,})', '\\19223372036854775807')) AS readable
    SELECT
        *,
        coalesce(
            nullIf(JSONExtractString(readable, eventType, 'changes_requested', 'api_call_logging'), ''),
            JSONExtractString(readable, eventType, 'data', 'api_call_logging')) AS logging
    FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
    WHERE eventType = 'organization.updated'
)
WHERE has({logging_values:Array(String)}, logging)
