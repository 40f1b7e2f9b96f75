WITH
    arrayConcat(
        JSONExtract(rawLog, eventType, 'permissions', 'Array(String)'),
        JSONExtract(rawLog, eventType, 'changes_requested', 'permissions_added', 'Array(String)')) AS given,
    arrayFilter(permission -> arrayExists(pattern -> lower(permission) LIKE replaceAll(pattern, '*', '%'),
        {sensitive_permissions:Array(String)}), given) AS sensitive
SELECT *,
    coalesce(nullIf(JSONExtractString(rawLog, eventType, 'id'), ''), '(unnamed role)') AS entity,
    concat('gives ', arrayStringConcat(arraySlice(arraySort(arrayDistinct(sensitive)), 1, 20), ', ')) AS detail
FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
WHERE eventType IN ('role.created', 'role.updated') AND notEmpty(sensitive)
