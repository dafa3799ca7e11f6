"""Configurations that have to be refused, each with the lines that say why."""

from __future__ import annotations

GOOD = """\
[host]
name = "depot"
imports = ["depot"]

[queues.parcels]
capacity = 10

[services.sort]
use = "depot.code:Sort"
options = { folder = "in", batch = 5 }

[workers.deliver]
queue = "parcels"
handler = "depot.code:deliver"
count = 2

[schedules.report]
call = "depot.code:report"
every = "5m"
"""


class Case:
    """A configuration that is wrong, and what is said of it.

    Args:
        name: what is wrong.
        text: the file.
        lines: what comes after the file's name in each line.
    """

    def __init__(self, name: str, text: str, *lines: str) -> None:
        self.name = name
        self.text = text
        self.lines = [f"config.toml{line}" for line in lines]


def changed(old: str, new: str) -> str:
    """The good configuration with one change."""
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)


def added(text: str) -> str:
    """The good configuration with something more."""
    return f"{GOOD}\n{text}\n"


def service(text: str) -> str:
    """The good configuration with another service."""
    return added(f"[services.extra]\n{text}")


def options(text: str) -> str:
    """The good configuration with other options of the service."""
    return changed('{ folder = "in", batch = 5 }', f'{{ folder = "in", {text} }}')


CASES = [
    Case(
        "torn in the middle",
        GOOD[:-8],
        ":19:6: Expected '=' after a key in a key/value pair",
    ),
    Case(
        "torn in a table header",
        "[services.sort",
        ":1:15: Expected ']' at the end of a table declaration",
    ),
    Case(
        "no TOML at all",
        "<config/>",
        ":1:1: Invalid statement",
    ),
    Case(
        "a table twice",
        added('[services.sort]\nuse = "depot.code:Sort"'),
        ":21:15: [services.sort] is there twice",
    ),
    Case(
        "a key twice",
        service('use = "depot.code:watch"\nuse = "depot.code:watch"'),
        ":23:25: this key is there twice",
    ),
    Case(
        "nested beyond reason",
        "x = " + "[" * 5000,
        ": nested too deeply",
    ),
    Case(
        "dotted beyond reason",
        "x." * 40 + "x = 1",
        (
            ":x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x: nested "
            "more than 32 deep"
        ),
    ),
    Case(
        "a number of 5,000 digits",
        "x = " + "9" * 5000,
        ": a number has too many digits",
    ),
    Case(
        "nothing to run",
        "[host]\n",
        (": nothing to run; add a [services.NAME], [workers.NAME] or [schedules.NAME] table"),
    ),
    Case(
        "only a queue",
        "[queues.parcels]",
        (": nothing to run; add a [services.NAME], [workers.NAME] or [schedules.NAME] table"),
    ),
    Case(
        "a database that is no URL",
        added('[database]\nurl = "var/db"'),
        (
            ':database.url: it is not the URL of a database; expected "embedded:DIRECTORY" or '
            '"postgresql://HOST/DATABASE"'
        ),
    ),
    Case(
        "a database that is nowhere",
        added('[database]\nurl = "embedded:"'),
        (
            ':database.url: it is not the URL of a database; expected "embedded:DIRECTORY" or '
            '"postgresql://HOST/DATABASE"'
        ),
    ),
    Case(
        "a database's port that is none",
        added('[database]\nurl = "postgresql://host:70000/depot"'),
        (
            ':database.url: its address is wrong; expected "embedded:DIRECTORY" or '
            '"postgresql://HOST/DATABASE"'
        ),
    ),
    Case(
        "a database's password in clear text",
        added('[database]\nurl = "postgresql://ann:secret@host/depot"'),
        (
            ":database.url: it holds a password in clear text; write "
            '{ env = "DATABASE_URL" } or { file = "…" }, and put the URL there'
        ),
    ),
    Case(
        "a database's password in clear text, at the end",
        added('[database]\nurl = "postgresql://host/depot?user=ann&password=secret"'),
        (
            ":database.url: it holds a password in clear text; write "
            '{ env = "DATABASE_URL" } or { file = "…" }, and put the URL there'
        ),
    ),
    Case(
        "a line break in a database's address",
        added('[database]\nurl = "postgresql://host\\r\\n/depot"'),
        (
            ':database.url: it is not the URL of a database; expected "embedded:DIRECTORY" or '
            '"postgresql://HOST/DATABASE"'
        ),
    ),
    Case(
        "a database that is in two places",
        added('[database]\nurl = { env = "A", file = "b" }'),
        ':database.url: not where a secret is; expected { env = "NAME" } or { file = "PATH" }',
    ),
    Case(
        "a database that is a number",
        added("[database]\nurl = 5"),
        ':database.url: a value is not text or { env = "NAME" } or { file = "PATH" }',
    ),
    Case(
        "a database's password in clear text, with what ends an address in it",
        added('[database]\nurl = "postgresql://ann:se/cret@host/depot"'),
        (
            ':database.url: its address is wrong; expected "embedded:DIRECTORY" or '
            '"postgresql://HOST/DATABASE"'
        ),
    ),
    Case(
        "a database whose variable is not set",
        added('[database]\nurl = { env = "NO_SUCH_VARIABLE" }'),
        ":database.url: the environment has no NO_SUCH_VARIABLE; set it",
    ),
    Case(
        "a service after a database that is not there",
        changed('use = "depot.code:Sort"', 'use = "depot.code:Sort"\nafter = ["database"]'),
        ":services.sort.after[0]: there is no database; add a [database] table",
    ),
    Case(
        "an unknown table",
        added("[databse]"),
        (':databse: unknown key; did you mean "database"?'),
    ),
    Case(
        "an unknown key",
        changed("capacity = 10", "capcity = 10"),
        ':queues.parcels.capcity: unknown key; did you mean "capacity"?',
    ),
    Case(
        "an unknown key with nothing like it",
        changed("capacity = 10", "zzz = 10"),
        ":queues.parcels.zzz: unknown key; expected one of capacity, when_full",
    ),
    Case(
        "a key with a line break in it",
        changed("capacity = 10", '"a\\nb" = 10'),
        ':queues.parcels."a\\nb": unknown key; expected one of capacity, when_full',
    ),
    Case(
        "a value where a table belongs",
        changed("[queues.parcels]\ncapacity = 10", "[queues]\nparcels = 10"),
        ":queues.parcels: 10 is not a table",
    ),
    Case(
        "a table where a value belongs",
        changed("count = 2", "count = { of = 2 }"),
        ":workers.deliver.count: a table is not a whole number",
    ),
    Case(
        "text for a whole number",
        changed("count = 2", 'count = "2"'),
        ':workers.deliver.count: "2" is not a whole number',
    ),
    Case(
        "true for a whole number",
        changed("count = 2", "count = true"),
        ":workers.deliver.count: true is not a whole number",
    ),
    Case(
        "a fraction for a whole number",
        changed("count = 2", "count = 2.5"),
        ":workers.deliver.count: 2.5 is not a whole number",
    ),
    Case(
        "no workers",
        changed("count = 2", "count = 0"),
        ":workers.deliver.count: 0 is too small; expected at least 1",
    ),
    Case(
        "less than no workers",
        changed("count = 2", "count = -1"),
        ":workers.deliver.count: -1 is too small; expected at least 1",
    ),
    Case(
        "a million workers",
        changed("count = 2", "count = 1_000_000"),
        ":workers.deliver.count: 1000000 is too large; expected at most 10000",
    ),
    Case(
        "text for a truth value",
        service('use = "depot.code:report"\ncritical = "false"'),
        ':services.extra.critical: "false" is not true or false',
    ),
    Case(
        "a number for a truth value",
        service('use = "depot.code:report"\ncritical = 1'),
        ":services.extra.critical: 1 is not true or false",
    ),
    Case(
        "text for an array",
        changed('imports = ["depot"]', 'imports = "depot"'),
        ':host.imports: "depot" is not an array; write ["depot"]',
    ),
    Case(
        "a number in an array of texts",
        changed('imports = ["depot"]', 'imports = ["depot", 1]'),
        ":host.imports[1]: 1 is not text",
    ),
    Case(
        "a package that is none",
        changed('imports = ["depot"]', 'imports = ["depot", "a b"]'),
        ':host.imports: "a b" is not a package; expected text like "inbox"',
    ),
    Case(
        "a relative package",
        changed('imports = ["depot"]', 'imports = ["depot", ".jobs"]'),
        ':host.imports: ".jobs" is not a package; expected text like "inbox"',
    ),
    Case(
        "one word for another",
        service('use = "depot.code:report"\nrestart = "allways"'),
        (
            ':services.extra.restart: "allways" is not one of "always", "never", '
            '"on_failure"; did you mean "always"?'
        ),
    ),
    Case(
        "an unknown level",
        added('[log]\nlevel = "loud"'),
        (
            ':log.level: "loud" is not one of "critical", "debug", "error", "info", '
            '"success", "trace", "warning"'
        ),
    ),
    Case(
        "an unknown format",
        added('[log]\nformat = "xml"'),
        ':log.format: "xml" is not one of "console", "json"',
    ),
    Case(
        "the level of an unknown service",
        added('[log]\nlevels = { sorte = "debug" }'),
        (
            ':log.levels.sorte: there is no service, workers or schedule "sorte"; did '
            'you mean "sort"?'
        ),
    ),
    Case(
        "no capacity",
        changed("capacity = 10", "capacity = 0"),
        ":queues.parcels.capacity: 0 is too small; expected at least 1",
    ),
    Case(
        "an unknown way to be full",
        changed("capacity = 10", 'when_full = "drop"'),
        (
            ':queues.parcels.when_full: "drop" is not one of "drop_newest", "drop_oldest", '
            '"reject", "wait"'
        ),
    ),
    Case(
        "a missing key",
        changed('queue = "parcels"\n', ""),
        ":workers.deliver.queue: missing; expected text",
    ),
    Case(
        "no interval",
        changed('every = "5m"', "every = 0"),
        ":schedules.report.every: 0 is too small; expected more than 0",
    ),
    Case(
        "a negative interval",
        changed('every = "5m"', "every = -1.5"),
        ":schedules.report.every: -1.5 is too small; expected more than 0",
    ),
    Case(
        "a negative interval as text",
        changed('every = "5m"', 'every = "-5m"'),
        (
            ':schedules.report.every: "-5m" is not a duration: seconds, or text like '
            '"500ms", "1.5s", "10m", "2h", "1d"'
        ),
    ),
    Case(
        "an interval of no unit that is known",
        changed('every = "5m"', 'every = "5 minutes"'),
        (
            ':schedules.report.every: "5 minutes" is not a duration: seconds, or text '
            'like "500ms", "1.5s", "10m", "2h", "1d"'
        ),
    ),
    Case(
        "an interval in Arabic digits",
        changed('every = "5m"', 'every = "\u0665m"'),
        (
            ':schedules.report.every: "\u0665m" is not a duration: seconds, or text like '
            '"500ms", "1.5s", "10m", "2h", "1d"'
        ),
    ),
    Case(
        "true for an interval",
        changed('every = "5m"', "every = true"),
        (
            ":schedules.report.every: true is not a duration: seconds, or text like "
            '"500ms", "1.5s", "10m", "2h", "1d"'
        ),
    ),
    Case(
        "an endless interval",
        changed('every = "5m"', "every = inf"),
        ":schedules.report.every: inf is not a finite number",
    ),
    Case(
        "an interval that is no number",
        changed('every = "5m"', "every = nan"),
        ":schedules.report.every: nan is not a finite number",
    ),
    Case(
        "a jitter as long as the interval",
        changed('every = "5m"', 'every = "5m"\njitter = 300'),
        ":schedules.report.jitter: 5m is too large; expected less than the 5m of `every`",
    ),
    Case(
        "a schedule without a time",
        changed('every = "5m"', ""),
        ':schedules.report: needs either every, like "5m", or cron, like "*/5 * * * *"',
    ),
    Case(
        "a schedule with two kinds of times",
        changed('every = "5m"', 'every = "5m"\ncron = "@daily"'),
        ":schedules.report.cron: does not go together with `every`; leave one of them out",
    ),
    Case(
        "a start of cron",
        changed('every = "5m"', 'start = "5m"\ncron = "@daily"'),
        ":schedules.report.start: goes with `every`, not with `cron`",
    ),
    Case(
        "a time zone of a grid",
        changed('every = "5m"', 'every = "5m"\ntimezone = "Europe/Berlin"'),
        ":schedules.report.timezone: goes with `cron`, not with `every`",
    ),
    Case(
        "a cron expression with a wrong minute",
        changed('every = "5m"', 'cron = "60 * * * *"'),
        (
            ":schedules.report.cron: cron '60 * * * *': the minute '60' is wrong; give *, or a "
            "list of numbers and ranges of 0-59, with steps like */5"
        ),
    ),
    Case(
        "a cron expression that never comes",
        changed('every = "5m"', 'cron = "0 0 31 2 *"'),
        (
            ":schedules.report.cron: cron '0 0 31 2 *' never comes: there is no day-of-month '31' "
            "in the month '2', on the day-of-week '*'"
        ),
    ),
    Case(
        "a time zone that does not exist",
        changed('every = "5m"', 'cron = "@daily"\ntimezone = "Europe/Berln"'),
        (
            ":schedules.report.timezone: there is no timezone 'Europe/Berln'; "
            "did you mean 'Europe/Berlin'?"
        ),
    ),
    Case(
        "an unknown queue to feed",
        changed("count = 2", 'feeds = ["parcels", "parcel"]'),
        ':workers.deliver.feeds[1]: there is no queue "parcel"; did you mean "parcels"?',
    ),
    Case(
        "batches in order",
        changed("count = 2", 'batch = { size = 2 }\nkey = "depot.code:is_transient"'),
        ":workers.deliver.key: does not go together with `batch`; leave one of them out",
    ),
    Case(
        "an async key",
        changed("count = 2", 'key = "depot.code:report"'),
        (
            ":workers.deliver.key: depot.code:report is async, but key needs a plain function "
            "(without async)"
        ),
    ),
    Case(
        "an async handler for a process",
        changed("count = 2", 'isolation = "process"'),
        (
            ":workers.deliver.handler: depot.code:deliver is async, but "
            'isolation = "process" needs a plain function (without async)'
        ),
    ),
    Case(
        "live options in a process",
        changed(
            '"depot.code:deliver"\ncount = 2',
            '"depot.code:crunch"\nisolation = "process"\noptions = { pause = 1 }',
        ),
        (
            ":workers.deliver.handler: depot.code:crunch asks for Live options, and another "
            "process would not hear of their changes; ask for the options themselves"
        ),
    ),
    Case(
        "live options without a class",
        service('use = "depot.code:listen"\noptions = {}'),
        (
            ":services.extra.use: depot.code:listen has to annotate its `options` with an attrs "
            "class or a dataclass"
        ),
    ),
    Case(
        "a rate of nothing",
        changed("count = 2", "rate = { count = 0 }"),
        ":workers.deliver.rate.count: 0 is too small; expected at least 1",
    ),
    Case(
        "a time-out of nothing",
        changed("count = 2", "timeout = 0"),
        ":workers.deliver.timeout: 0 is too small; expected more than 0",
    ),
    Case(
        "a retry that does not even try",
        changed("count = 2", "retry = { attempts = 0 }"),
        ":workers.deliver.retry.attempts: 0 is too small; expected at least 1",
    ),
    Case(
        "a backoff that shrinks",
        changed("count = 2", "retry = { backoff = { factor = 0.5 } }"),
        ":workers.deliver.retry.backoff.factor: 0.5 is too small; expected at least 1",
    ),
    Case(
        "a breaker that opens at nothing",
        service('use = "depot.code:report"\nbreaker = { failures = 0 }'),
        ":services.extra.breaker.failures: 0 is too small; expected at least 1",
    ),
    Case(
        "a jitter of more than all",
        service('use = "depot.code:report"\nbackoff = { jitter = 1.5 }'),
        ":services.extra.backoff.jitter: 1.5 is too large; expected at most 1",
    ),
    Case(
        "a limit over no time",
        changed('name = "depot"', "max_restarts = { per = 0 }"),
        ":host.max_restarts.per: 0 is too small; expected more than 0",
    ),
    Case(
        "a name in capitals",
        added('[services.Extra]\nuse = "depot.code:report"'),
        (
            ':services.Extra: "Extra" is not a name; expected a-z first, then at most 47 '
            "of a-z 0-9 _ . -"
        ),
    ),
    Case(
        "a name of 49 characters",
        added(f'[services.{"a" * 49}]\nuse = "depot.code:report"'),
        (
            ":services.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: "
            '"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" is not a name; expected '
            "a-z first, then at most 47 of a-z 0-9 _ . -"
        ),
    ),
    Case(
        "a name with a space",
        added('[queues."two words"]'),
        (
            ':queues."two words": "two words" is not a name; expected a-z first, then at '
            "most 47 of a-z 0-9 _ . -"
        ),
    ),
    Case(
        "an application with a bad name",
        changed('name = "depot"', 'name = "The Depot"'),
        (
            ':host.name: "The Depot" is not a name; expected a-z first, then at most 47 '
            "of a-z 0-9 _ . -"
        ),
    ),
    Case(
        "a reserved name",
        added('[services.admin]\nuse = "depot.code:report"'),
        ':services.admin: the name "admin" is reserved; choose another',
    ),
    Case(
        "a name twice",
        added('[schedules.sort]\ncall = "depot.code:report"\nevery = 1'),
        ':schedules.sort: the name "sort" is taken by services.sort',
    ),
    Case(
        "an unknown queue",
        changed('queue = "parcels"', 'queue = "parcel"'),
        ':workers.deliver.queue: there is no queue "parcel"; did you mean "parcels"?',
    ),
    Case(
        "a queue with nothing like it",
        changed('queue = "parcels"', 'queue = "zzz"'),
        ':workers.deliver.queue: there is no queue "zzz"; add a [queues.zzz] table',
    ),
    Case(
        "an unknown dependency",
        service('use = "depot.code:report"\nafter = ["srot"]'),
        (
            ':services.extra.after[0]: there is no service, workers or schedule "srot"; '
            'did you mean "sort"?'
        ),
    ),
    Case(
        "a dependency on itself",
        service('use = "depot.code:report"\nafter = ["extra"]'),
        ':services.extra.after[0]: "extra" cannot come after itself',
    ),
    Case(
        "a cycle",
        service(
            'use = "depot.code:report"\nafter = ["other"]\n\n'
            '[services.other]\nuse = "depot.code:report"\nafter = ["extra"]'
        ),
        ":services.extra.after: each of these comes after the next: extra → other → extra",
    ),
    Case(
        "a stop over the budget",
        service('use = "depot.code:report"\nstop_within = "31s"'),
        (
            ":host.stop_within: depot may need 31 s to stop, but has 30 s: lower the "
            "stop_within of services that come after each other, or raise the budget"
        ),
    ),
    Case(
        "a chain of stops over the budget",
        service('use = "depot.code:report"\nafter = ["sort"]\nstop_within = 25'),
        (
            ":host.stop_within: depot may need 35 s to stop, but has 30 s: lower the "
            "stop_within of services that come after each other, or raise the budget"
        ),
    ),
    Case(
        "a port that does not exist",
        added('[admin]\nbind = "127.0.0.1:70000"'),
        ":admin.bind: port 70000 is not in 0 to 65535",
    ),
    Case(
        "an address that is none",
        added('[admin]\nbind = "somewhere"'),
        (
            ":admin.bind: 'somewhere' is no address to listen on; write 127.0.0.1:8765, "
            "[::1]:8765, localhost:8765 or unix:run/admin.sock"
        ),
    ),
    Case(
        "an address that all can reach",
        added('[admin]\nbind = "0.0.0.0:8765"'),
        (
            ":admin.bind: host '0.0.0.0' is not loopback: binds beyond loopback need a "
            "token, which this version does not have; bind 127.0.0.1 and put a proxy in front"
        ),
    ),
    Case(
        "code by path",
        service('use = "depot/code.py"'),
        (':services.extra.use: "depot/code.py" does not name code; expected "package.module:name"'),
    ),
    Case(
        "code with a dot for the colon",
        service('use = "depot.code.report"'),
        (
            ':services.extra.use: "depot.code.report" does not name code; expected '
            '"package.module:name"; did you mean "depot.code:report"?'
        ),
    ),
    Case(
        "code that is relative",
        service('use = ".code:report"'),
        ':services.extra.use: ".code:report" is relative; expected "package.module:name"',
    ),
    Case(
        "code of the operating system",
        service('use = "os:system"'),
        (
            ':services.extra.use: "os" is not in host.imports; add its package there if '
            "this file may load it"
        ),
    ),
    Case(
        "code of another package by a detour",
        service('use = "depot.code:rmtree"'),
        (
            ":services.extra.use: depot.code:rmtree comes from shutil, which is not in "
            "host.imports; add it there if this file may load it"
        ),
    ),
    Case(
        "code in a package of a like name",
        service('use = "depots.code:report"'),
        (
            ':services.extra.use: "depots.code" is not in host.imports; add its package '
            'there if this file may load it; did you mean "depot"?'
        ),
    ),
    Case(
        "a number for code",
        service("use = 5"),
        ':services.extra.use: 5 does not name code; expected "package.module:name"',
    ),
    Case(
        "a module that is missing",
        service('use = "depot.cod:report"'),
        ':services.extra.use: there is no module depot.cod; did you mean "depot.code"?',
    ),
    Case(
        "a package that is missing",
        changed('imports = ["depot"]', 'imports = ["depot", "dept"]')
        + '\n[services.extra]\nuse = "dept.code:report"\n',
        (":services.extra.use: there is no module dept beside the file, or where Python looks"),
    ),
    Case(
        "an attribute that is missing",
        service('use = "depot.code:reprt"'),
        ':services.extra.use: module depot.code has no "reprt"; did you mean "report"?',
    ),
    Case(
        "code that cannot be called",
        service('use = "depot.code:van"'),
        (
            ":services.extra.use: depot.code:van is not callable; expected an async "
            "function or a class"
        ),
    ),
    Case(
        "a service that is not async",
        service('use = "depot.code:plain"'),
        ":services.extra.use: depot.code:plain is not async; define it with `async def`",
    ),
    Case(
        "a class that is no service",
        service('use = "depot.code:Deliver"'),
        (
            ":services.extra.use: depot.code:Deliver is a class, but no Service; derive "
            "it from Service"
        ),
    ),
    Case(
        "a service without run",
        service('use = "depot.code:Unfinished"'),
        ":services.extra.use: depot.code:Unfinished is abstract; define its run",
    ),
    Case(
        "a service whose run is not async",
        service('use = "depot.code:Prompt"'),
        (
            ":services.extra.use: the run of depot.code:Prompt is not async; define it "
            "with `async def`"
        ),
    ),
    Case(
        "a handler that is not async",
        changed("depot.code:deliver", "depot.code:Deaf"),
        (":workers.deliver.handler: depot.code:Deaf is a class without an `async def __call__`"),
    ),
    Case(
        "a handler that takes no item",
        changed("depot.code:deliver", "depot.code:report"),
        (
            ":workers.deliver.handler: depot.code:report cannot be called as "
            "handler(item): too many positional arguments"
        ),
    ),
    Case(
        "a call that wants an item",
        changed("depot.code:report", "depot.code:deliver"),
        (
            ":schedules.report.call: depot.code:deliver asks for `parcel: str`, which no "
            "configuration can give; give it a default, or take it from `options`"
        ),
    ),
    Case(
        "a handler that cannot be made",
        changed("depot.code:deliver", "depot.broken:Broken"),
        (
            ":workers.deliver.handler: making depot.broken:Broken failed: RuntimeError: no "
            "van\\ntoday ({folder}/depot/broken.py:6)"
        ),
    ),
    Case(
        "failures to retry that are none",
        changed("count = 2", 'retry = { on = "depot.code:van" }'),
        (
            ":workers.deliver.retry.on: depot.code:van is neither an exception nor a "
            "plain function (without async)"
        ),
    ),
    Case(
        "a service that asks for too much",
        service('use = "depot.code:Demanding"'),
        (
            ":services.extra.use: depot.code:Demanding asks for `van: depot.code.Size`, "
            "which no configuration can give; give it a default, or take it from `options`"
        ),
        (
            ':services.extra.use: depot.code:Demanding asks for a queue "parcel", which '
            'does not exist; did you mean "parcels"?'
        ),
        (
            ":services.extra.use: depot.code:Demanding asks for `parcels: list[str]`, "
            "which no configuration can give; annotate it as a WorkQueue to get "
            "[queues.parcels]"
        ),
    ),
    Case(
        "options without a class",
        service('use = "depot.code:Untyped"\noptions = {}'),
        (
            ":services.extra.use: depot.code:Untyped has to annotate its `options` with "
            "an attrs class or a dataclass"
        ),
    ),
    Case(
        "annotations that do not resolve",
        service('use = "depot.code:Unresolved"\noptions = {}'),
        (
            ":services.extra.use: depot.code:Unresolved: its annotations do not resolve: "
            "name 'Missing' is not defined; is it imported for type checkers only?"
        ),
    ),
    Case(
        "options for code that takes none",
        service('use = "depot.code:report"\noptions = { a = 1 }'),
        ":services.extra.options: its code takes no options",
    ),
    Case(
        "an option that is missing",
        changed('{ folder = "in", batch = 5 }', "{ batch = 5 }"),
        ":services.sort.options.folder: missing; expected a path",
    ),
    Case(
        "options that are missing",
        changed('options = { folder = "in", batch = 5 }', ""),
        ":services.sort.options.folder: missing; expected a path",
    ),
    Case(
        "an unknown option",
        options("bacth = 5"),
        ':services.sort.options.bacth: unknown key; did you mean "batch"?',
    ),
    Case(
        "an option of the wrong type",
        options("batch = 5.0"),
        ":services.sort.options.batch: 5.0 is not a whole number",
    ),
    Case(
        "an option that its validator refuses",
        options("batch = 0"),
        ":services.sort.options.batch: 'batch' must be >= 1: 0",
    ),
    Case(
        "a path that is empty",
        options('spare = ""'),
        ':services.sort.options.spare: "" is not a path',
    ),
    Case(
        "an option that is one of few",
        options('mode = "thourough", size = "medium"'),
        (
            ':services.sort.options.mode: "thourough" is not one of "fast", "thorough"; '
            'did you mean "thorough"?'
        ),
        ':services.sort.options.size: "medium" is not one of "large", "small"',
    ),
    Case(
        "an option of two types that has neither",
        options("either = 1.5"),
        ":services.sort.options.either: 1.5 is not a whole number or text",
    ),
    Case(
        "an entry of an option",
        options('limits = { a = 1, b = "2" }, tags = ["x", 2]'),
        ':services.sort.options.limits.b: "2" is not a whole number',
        ":services.sort.options.tags[1]: 2 is not text",
    ),
    Case(
        "options that contradict each other",
        service('use = "depot.code:Audit"\noptions = { first = 5, last = 3 }'),
        ":services.extra.options: last (3) comes before first (5)",
    ),
]
