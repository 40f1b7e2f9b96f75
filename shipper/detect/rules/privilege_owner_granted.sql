WITH
    -- JSON functions read nothing of a document with one odd byte or number in it: this is the repaired one.
    if(isValidJSON(rawLog), rawLog, replaceRegexpAll(
        replaceRegexpAll(toValidUTF8(rawLog), '\\\\u[dD][89a-fA-F][0-9a-fA-F]{2}', '\\\\ufffd'),
        '([:,\\[]\\s*-?)([0-9.]+[eE]\\+?[0-9]{3,}|[0-9]{20,})', '\\19223372036854775807')) AS readable,
    lower(coalesce(
        nullIf(JSONExtractString(readable, eventType, 'changes_requested', 'role'), ''),
        JSONExtractString(readable, eventType, 'data', 'role'))) AS role
SELECT *,
    coalesce(nullIf(lower(JSONExtractString(readable, eventType, 'data', 'email')), ''),
        nullIf(JSONExtractString(readable, eventType, 'id'), ''), '(unnamed)') AS entity,
    concat('role ', role) AS detail
FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
WHERE eventType IN ('user.added', 'user.updated', 'invite.sent', 'service_account.created', 'service_account.updated')
    AND has({roles:Array(String)}, role)
