"""Where the simulated people work and with what: places with public address ranges, names and browsers.

The ranges belong to large access providers of the country named; the coordinates are those of the city. Nothing here
is about a real person.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from random import Random


@dataclass(frozen=True, slots=True)
class Place:
    """A city as `ip_address_details` describes it, one address range in it, and its offset from UTC in hours."""

    country: str
    city: str
    region: str
    region_code: str
    asn: str
    latitude: str
    longitude: str
    network: str
    utc_offset: float

    def address(self, rng: Random) -> str:
        """One host address of the range."""
        network = ip_network(self.network)
        return str(network[rng.randrange(1, min(network.num_addresses, 2**16) - 1)])


HOMES = (
    Place("US", "Milton", "Washington", "WA", "209", "47.2513", "-122.3149", "216.160.83.0/24", -8),
    Place("US", "Austin", "Texas", "TX", "7018", "30.2672", "-97.7431", "99.96.0.0/16", -6),
    Place("US", "New York", "New York", "NY", "701", "40.7128", "-74.0060", "71.167.0.0/16", -5),
    Place("GB", "London", "England", "ENG", "20712", "51.5142", "-0.0931", "81.2.69.0/24", 0),
    Place("SE", "Linköping", "Östergötland County", "E", "29518", "58.4167", "15.6167", "89.160.20.0/24", 1),
    Place("DE", "Berlin", "Land Berlin", "BE", "3320", "52.5244", "13.4105", "84.190.0.0/16", 1),
    Place("FR", "Lyon", "Auvergne-Rhône-Alpes", "ARA", "3215", "45.7485", "4.8467", "90.35.0.0/16", 1),
    Place("IN", "Bengaluru", "Karnataka", "KA", "9829", "12.9719", "77.5937", "117.192.0.0/16", 5.5),
    Place("JP", "Tokyo", "Tokyo", "13", "2914", "35.6895", "139.6917", "2001:218:1::/48", 9),
)

# Nobody of the organization works from these two: they belong to the incidents.
UNUSUAL = Place("RO", "Bucharest", "București", "B", "8708", "44.4328", "26.1043", "86.124.0.0/16", 2)
ATTACKER = Place("NL", "Amsterdam", "North Holland", "NH", "60729", "52.3740", "4.8897", "185.220.101.0/24", 1)

GIVEN_NAMES = (
    *("Alice", "Ben", "Chloé", "Daniel", "Elif", "Farah", "Grace", "Håkan", "Ines", "Jonas", "Kavya", "Liam", "Mei"),
    *(
        "Noor",
        "Oscar",
        "Priya",
        "Quentin",
        "Rosa",
        "Søren",
        "Tomoko",
        "Uma",
        "Viktor",
        "Wren",
        "Ximena",
        "Yusuf",
        "Zoë",
    ),
)
FAMILY_NAMES = (
    *("Abe", "Baker", "Carlsson", "Dubois", "Eriksson", "Fischer", "Gupta", "Hughes", "Iyer", "Jansen", "Kim", "Lopez"),
    *("Müller", "Nguyen", "Okafor", "Patel", "Quinn", "Rossi", "Silva", "Tanaka", "Usman", "Vogel", "Wang", "Young"),
)

_WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64)"
_MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)"
_CHROME = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
BROWSERS = (
    f"{_WINDOWS} {_CHROME}",
    f"{_MAC} {_CHROME}",
    f"{_MAC} AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Safari/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0",
    f"{_WINDOWS} {_CHROME} Edg/141.0.0.0",
)
ATTACK_TOOL = "python-requests/2.32.5"
