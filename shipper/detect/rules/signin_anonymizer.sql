SELECT
    *,
    coalesce(nullIf(lower(actorUserEmail), ''), actorUserID) AS entity,
    arrayStringConcat(arrayFilter(text -> text != '', [srcConnectionType, srcIP, srcASOrganization]), ', ') AS detail
FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
WHERE eventType = 'login.succeeded' AND has({kinds:Array(String)}, srcConnectionType)
    AND NOT arrayExists(network -> isIPAddressInRange(if(srcIP = '', '::', srcIP), network),
        {office_networks:Array(String)})
