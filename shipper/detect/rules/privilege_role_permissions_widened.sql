-- Permissions that privilege_role_sensitive_permissions finds are left to it.
WITH
    -- JSON functions read nothing of a document with one odd byte or number in it: this is the repaired one.
    if(isValidJSON(rawLog), rawLog, replaceRegexpAll(
        replaceRegexpAll(toValidUTF8(rawLog), '\\\\u[dD][89a-fA-F][0-9a-fA-F]{2}', '\\\\ufffd'),
        '([:,\\[]\\s*-?)([0-9.]+[eE]\\+?[0-9]{3,}|[0-9]{20,})', '\\19223372036854775807')) AS readable,
    JSONExtract(readable, eventType, 'changes_requested', 'permissions_added', 'Array(String)') AS given
SELECT *,
    coalesce(nullIf(JSONExtractString(readable, eventType, 'id'), ''), '(unnamed role)') AS entity,
    concat('adds ', arrayStringConcat(arraySlice(arraySort(arrayDistinct(given)), 1, 20), ', ')) AS detail
FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
WHERE eventType = 'role.updated' AND notEmpty(given)
    AND NOT arrayExists(permission -> arrayExists(pattern -> lower(permission) LIKE replaceAll(pattern, '*', '%'),
        {sensitive_permissions:Array(String)}), given)
