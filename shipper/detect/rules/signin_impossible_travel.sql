-- Every sign-in of an account that has another within {seconds}, too far away to travel there in the time between them.
--
-- Sign-ins at one place in one minute are one stop, so that many of them make few pairs. Two stops that are n minutes
-- apart are given n + 1 to travel. A pair is told once for each of its stops, in the first sign-in there.
WITH
    signins AS
    (
        SELECT
            *,
            coalesce(nullIf(lower(actorUserEmail), ''), actorUserID) AS account,
            intDiv(toInt64(toUnixTimestamp(eventTime)), 60) AS minute,
            (srcLongitude, srcLatitude, srcCity, srcASCountryCode) AS place
        FROM openai_audit_around(from = {from:DateTime}, to = {to:DateTime}, seconds = {seconds:UInt32})
        WHERE eventType = 'login.succeeded' AND account != '' AND (srcLatitude != 0 OR srcLongitude != 0)
            AND NOT arrayExists(network -> isIPAddressInRange(if(srcIP = '', '::', srcIP), network),
                {office_networks:Array(String)})
    ),
    stops AS
    (
        SELECT workspaceID AS workspace, sourceID AS source, account AS person, minute AS at, place AS here,
            max(receivedAt >= {from:DateTime}) AS new,
            arrayStringConcat(arrayFilter(text -> text != '', [here.3, here.4]), ', ') AS city,
            if(city = '', concat(toString(here.2), ' ', toString(here.1)), city) AS called
        FROM signins
        GROUP BY ALL
    ),
    pairs AS
    (
        SELECT
            one.workspace AS workspace, one.source AS source, one.person AS person,
            one.at AS left_at, one.here AS left_here, two.at AS came_at, two.here AS came_here,
            came_at - left_at AS minutes,
            greatCircleDistance(left_here.1, left_here.2, came_here.1, came_here.2) / 1000 AS km,
            toUInt32(round(km, -1)) AS about,
            concat(
                one.called, ' → ', two.called, ': ',
                if(about < 1000, '', concat(toString(intDiv(about, 1000)), ',')),
                if(about < 1000, toString(about), leftPad(toString(about % 1000), 3, '0')), ' km ',
                multiIf(minutes = 0, 'within a minute', minutes = 1, 'in 1 minute',
                    concat('in ', toString(minutes), ' minutes'))) AS told
        FROM stops AS one
        INNER JOIN stops AS two ON one.workspace = two.workspace AND one.source = two.source AND one.person = two.person
        WHERE (one.at, one.here) < (two.at, two.here) AND (one.new OR two.new)
            AND (minutes + 1) * 60 <= {seconds:UInt32}
            AND km >= {distance_km:UInt32} AND km > {speed_kmh:UInt32} * (minutes + 1) / 60
    ),
    ends AS
    (
        SELECT workspace, source, person, stop.1 AS at, stop.2 AS here, groupUniqArray(told) AS tellings
        FROM pairs
        ARRAY JOIN [(left_at, left_here), (came_at, came_here)] AS stop
        GROUP BY ALL
    )
SELECT
    * EXCEPT (account, minute, place, first, workspace, source, person, at, here, tellings),
    account AS entity,
    arrayJoin(if(first = 1, tellings, [''])) AS detail
FROM
(
    SELECT *, row_number() OVER (PARTITION BY workspaceID, sourceID, account, minute, place ORDER BY id) AS first
    FROM signins
) AS each
INNER JOIN ends ON ends.workspace = workspaceID AND ends.source = sourceID AND ends.person = account
    AND ends.at = minute AND ends.here = place
