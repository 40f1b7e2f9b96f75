WITH
    -- JSON functions read nothing of a document with one odd byte or number in it: this is the repaired one.
    if(isValidJSON(rawLog), rawLog, replaceRegexpAll(
        replaceRegexpAll(toValidUTF8(rawLog), '\\\\u[dD][89a-fA-F][0-9a-fA-F]{2}', '\\\\ufffd'),
        '([:,\\[]\\s*-?)([0-9.]+[eE]\\+?[0-9]{3,}|[0-9]{20,})', '\\19223372036854775807')) AS readable,
    JSONExtractString(readable, eventType, if(eventType = 'role.assignment.created', 'principal_id', 'id')) AS receiver,
    JSONExtractString(readable, eventType, 'changes_requested', 'role') AS role
SELECT *,
    coalesce(nullIf(actorUserEmail, ''), receiver) AS entity,
    if(role = '', '', concat('role ', role)) AS detail
FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
WHERE eventType IN ('role.assignment.created', 'user.updated', 'service_account.updated')
    AND (eventType = 'role.assignment.created' OR (role != '' AND NOT has({ordinary_roles:Array(String)}, lower(role))))
    AND receiver != '' AND receiver IN (actorUserID, serviceAccountID)
