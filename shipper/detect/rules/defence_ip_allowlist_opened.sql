-- A range without a prefix is one address. What is no range at all has no prefix either.
SELECT
    * EXCEPT (wide),
    coalesce(nullIf(actorUserEmail, ''), nullIf(serviceAccountID, ''), nullIf(actorUserID, ''), nullIf(apiKeyID, ''), '(nobody)') AS entity,
    concat('lets in ', arrayStringConcat(arraySlice(wide, 1, 10), ', ')) AS detail
FROM
(
    WITH
        -- JSON functions read nothing of a document with one odd byte or number in it: this is the repaired one.
        if(isValidJSON(rawLog), rawLog, replaceRegexpAll(
            replaceRegexpAll(toValidUTF8(rawLog), '\\\\u[dD][89a-fA-F][0-9a-fA-F]{2}', '\\\\ufffd'),
            '([:,\\[]\\s*-?)([0-9.]+[eE]\\+?[0-9]{3,}|[0-9]{20,})', '\\19223372036854775807')) AS readable
    SELECT
        *,
        arrayFilter(
            range -> toUInt16OrDefault(extract(range, '/([0-9]{1,3})\\s*$'), toUInt16(999))
                < if(position(range, ':') > 0, {ipv6_prefix:UInt32}, {ipv4_prefix:UInt32}),
            JSONExtract(readable, eventType, 'allowed_ips', 'Array(String)')) AS wide
    FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
    WHERE eventType IN ('ip_allowlist.created', 'ip_allowlist.updated')
)
WHERE notEmpty(wide)
