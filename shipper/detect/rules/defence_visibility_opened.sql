SELECT
    * EXCEPT (changes, opened),
    coalesce(nullIf(actorUserEmail, ''), nullIf(serviceAccountID, ''), nullIf(actorUserID, ''), nullIf(apiKeyID, ''), '(nobody)') AS entity,
    arrayStringConcat(opened, ', ') AS detail
FROM
(
    WITH
        -- JSON functions read nothing of a document with one odd byte or number in it: this is the repaired one.
        if(isValidJSON(rawLog), rawLog, replaceRegexpAll(
            replaceRegexpAll(toValidUTF8(rawLog), '\\\\u[dD][89a-fA-F][0-9a-fA-F]{2}', '\\\\ufffd'),
            '([:,\\[]\\s*-?)([0-9.]+[eE]\\+?[0-9]{3,}|[0-9]{20,})', '\\19223372036854775807')) AS readable
    SELECT
        *,
        if(JSONHas(readable, eventType, 'changes_requested'), 'changes_requested', 'data') AS changes,
        arrayFilter(
            setting -> has({visibility_values:Array(String)}, JSONExtractString(readable, eventType, changes, setting)),
            ['threads_ui_visibility', 'usage_dashboard_visibility']) AS opened
    FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
    WHERE eventType = 'organization.updated'
)
WHERE notEmpty(opened)
