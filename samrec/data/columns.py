"""Which column of a table is the user, the item, the time, the rating: by the names that data sets use."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from landscape.errors import InputError

# In lower case, letters and digits only, without RecBole's `:type`; the first that is there counts.
USER = (
    *("user", "userid", "uid"),
    *("reviewerid", "visitorid", "customerid", "customer", "memberid", "clientid", "accountid", "playerid"),
    *("personid", "authorid", "username", "sessionid", "session"),
)
ITEM = (
    *("item", "itemid", "iid"),
    *("movieid", "parentasin", "asin", "productid", "businessid"),
    *(
        "articleid",
        "artistid",
        "venueid",
        "trackid",
        "songid",
        "bookid",
        "isbn",
        "gameid",
        "appid",
        "videoid",
    ),
    *(
        "newsid",
        "poiid",
        "locationid",
        "placeid",
        "sku",
        "stockcode",
        "recipeid",
        "beerid",
        "animeid",
        "product",
    ),
)
ALIKE = 3  # the first of each say no more than that it is a user or an item
TIME = ("time", "timestamp", "unixreviewtime", "ratingtimestamp", "datetime", "date")
RATING = ("rating", "ratings", "overall", "stars", "score", "bookrating", "reviewoverall", "userrating")
_WHAT = (
    "event|click|review|rating|rated|visit|viewed|order|purchase|buy|invoice|transaction|trans|checkin|created|"
    "creation|interaction|interact|action|listened|played|local|utc|gmt|unix|epoch|server|log|logged|comment|watched|"
    "added|posted|post|submitted|submission|start|started|impression|tx"
)
_UNIT = "ms|us|ns|s|sec|seconds|millis"
_TIME = re.compile(
    rf"(?:{_WHAT})*(?:timestamp|time|datetime|date|dt|ts|epoch)(?:{_WHAT}|{_UNIT})*"
    rf"|(?:{_WHAT})+(?:at|on|day)(?:{_UNIT}|utc)?|t|tdat"
)


@dataclass(frozen=True)
class Chosen:
    """The columns that count, by their number.

    Attributes:
        times: the columns that may be the time, the likeliest first.
        twins: other columns that may be the user or the item just as well.
        asked: whether they were named, not found.
    """

    user: int
    item: int
    times: tuple[int, ...]
    rating: int | None
    twins: dict[str, tuple[int, ...]]
    asked: bool

    @property
    def all(self) -> list[int]:
        """Every column to read, once."""
        others = [*self.times, *([] if self.rating is None else [self.rating]), *sum(self.twins.values(), ())]
        return list(dict.fromkeys([self.user, self.item, *others]))


def plain(name: str) -> str:
    """Return a column's name as it stands in the lists above."""
    return re.sub(r"[\W_]", "", name.partition(":")[0].lower())


def is_header(names: Sequence[str]) -> bool:
    """Whether fields are a header: they name a user and an item."""
    found = {plain(name) for name in names}
    return not found.isdisjoint(USER) and not found.isdisjoint(ITEM)


def choose(names: Sequence[str], header: bool, usual: str | None, columns: str | None, rated: bool) -> Chosen:
    """Choose the columns that count.

    Args:
        names: names of all columns; without a header, the fields of the first row.
        usual: the columns that a table without a header has, if its ending tells them.
        columns: what was asked for, see `TableOptions`.
        rated: whether the rating is needed.

    Raises:
        InputError: they are not there, or cannot be told.
    """
    if columns is None and header:
        chosen = _by_name(names, rated)
    elif columns is None and usual is not None:
        chosen = _usual(names, usual, rated)
    else:
        chosen = None if columns is None else _asked(names, columns, rated)
    if chosen is None:
        wrong = "cannot tell user from item" if columns is None else f"no columns {columns}"
        raise InputError(
            f"{wrong} among {', '.join(names[:8])}; name them with --columns USER,ITEM[,TIME] (by numbers "
            "from 0 without a header)" + ("" if len(names) > 1 else ", or the separator with --separator")
        )
    return chosen


def _by_name(names: Sequence[str], rated: bool) -> Chosen | None:
    known = [plain(name) for name in names]
    user, item = (_first(known, which) for which in (USER, ITEM))
    if user is None or item is None:
        return None
    lists = re.compile(f"{known[item]}(s|list|seq|sequence|history)?")
    if held := [name for name in names if name.endswith(":token_seq") and lists.fullmatch(plain(name))]:
        raise InputError(
            f"{held[0]} holds a history in each row, of which --columns would leave it out; write a row for "
            "each interaction, or a line 'user item item …' for each user"
        )
    times = [at for name in TIME for at, own in enumerate(known) if own == name]
    times += [at for at, own in enumerate(known) if at not in times and may_be_time(names[at])]
    twins = {
        role: tuple(at for at, own in enumerate(known) if own in which[:ALIKE] and at != taken)
        for role, which, taken in (("user", USER, user), ("item", ITEM, item))
        if known[taken] in which[:ALIKE]
    }
    return Chosen(user, item, tuple(times), _rating(known, rated), twins, False)


def _usual(names: Sequence[str], usual: str, rated: bool) -> Chosen | None:
    """MovieLens' columns, user, item, rating, time, unless the first row shows others."""
    user, item, rating, time = map(int, usual.split(","))
    if (
        len(names) <= time
        or not re.fullmatch(r"-?\d+(\.\d+)?", names[time])
        or re.search(r"\d[-:/]\d", names[item])
    ):
        return None
    return Chosen(user, item, (time,), rating if rated else None, {}, True)


def _asked(names: Sequence[str], columns: str, rated: bool) -> Chosen | None:
    asked = [name.strip() for name in columns.split(",")]
    if columns.replace(",", "").isdecimal():
        found = [int(name) if name.isdecimal() and int(name) < len(names) else None for name in asked]
    else:
        found = [names.index(name) if name in names else None for name in asked]
        if twice := next((name for name in asked if list(names).count(name) > 1), None):
            raise InputError(f"several columns are called {twice}; give --columns by numbers from 0")
    if len(found) == 4 and asked[2] == "":
        del found[2]
        times, rating = tuple[int, ...](), found[2]
    else:
        times, rating = (
            tuple(at for at in found[2:3] if at is not None),
            found[3] if len(found) == 4 else None,
        )
    if None in found or not 2 <= len(set(found)) == len(found) <= 4:
        return None
    if rating is None and rated:
        rating = _rating([plain(name) for name in names], rated)
    user, item = found[0], found[1]
    assert user is not None
    assert item is not None
    return Chosen(user, item, times, rating if rated else None, {}, True)


def _rating(known: Sequence[str], rated: bool) -> int | None:
    if not rated:
        return None
    if (found := _first(known, RATING)) is None:
        raise InputError("--min-rating needs a rating: name it with --columns USER,ITEM,TIME,RATING")
    return found


def _first(known: Sequence[str], wanted: Sequence[str]) -> int | None:
    return next((known.index(name) for name in wanted if name in known), None)


def may_be_time(name: str) -> bool:
    """Whether a name says a time of the interaction: `event_time`, `ts`, `created_at`; not `release_date`."""
    return bool(_TIME.fullmatch(plain(name)))
