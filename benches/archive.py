"""Drives PostgreSQL's archiver and recovery through several tools; started by archive.sh, which says how."""
import argparse, ctypes, glob, os, platform, pwd, re, resource, shlex, shutil, signal, statistics, subprocess, sys, tempfile, threading, time

ap = argparse.ArgumentParser()
ap.add_argument("--segments", type=int, default=100)
ap.add_argument("--segment-mib", type=int, default=16)
ap.add_argument("--rounds", type=int, default=2)
ap.add_argument("--delay-ms", type=int, default=30)
ap.add_argument("--tools", default="walvis,pgbackrest,walrus,barman,cp")
ap.add_argument("--stores", default="file,s3")
ap.add_argument("--out")
ap.add_argument("--work")
args = ap.parse_args()

env_of = os.environ.get
BIN = {
    "walvis": env_of("WALVIS_BIN"),
    "before": env_of("WALVIS_BEFORE_BIN"),
    "pgbackrest": env_of("PGBACKREST_BIN") or shutil.which("pgbackrest"),
    "walrus": env_of("WALRUS_BIN") or shutil.which("walrus"),
    "barman": env_of("BARMAN_BIN") or (os.path.dirname(shutil.which("barman-cloud-wal-archive") or "") or None),
    "cp": "/bin/cp",
}
PG = env_of("PG_BIN") or max(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda p: int(p.split("/")[4]), default=None)
if not PG:
    sys.exit("archive.sh: no PostgreSQL found: set PG_BIN (Debian: apt-get install postgresql)")
ROOT = os.geteuid() == 0
USER = pwd.getpwnam("postgres" if ROOT else pwd.getpwuid(os.geteuid()).pw_name)
DEMOTE = dict(user=USER.pw_uid, group=USER.pw_gid, extra_groups=[]) if ROOT else {}
TICK = os.sysconf("SC_CLK_TCK")
# Orphans (helpers in their own session) become our children, so that their CPU time is ours to count.
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)

out = open(args.out, "w") if args.out else None
def say(text=""):
    print(text, flush=True)
    if out:
        print(text, file=out, flush=True)

W = args.work or tempfile.mkdtemp(prefix="walvis-bench-")
os.makedirs(W, exist_ok=True)
W = os.path.realpath(W)
os.chmod(W, 0o755)
servers = []

def own(path):
    if ROOT:
        subprocess.run(["chown", "-R", f"{USER.pw_uid}:{USER.pw_gid}", path], check=True)
    return path

def run(command, env=None, **kw):
    done = subprocess.run(command, env=dict(BASE, **(env or {})), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **DEMOTE, **kw)
    if done.returncode:
        raise RuntimeError(f"{command}: exit {done.returncode}\n{done.stdout}")
    return done.stdout

BASE = {"PATH": f"{PG}:/usr/local/bin:/usr/bin:/bin", "HOME": W, "LC_ALL": "C.UTF-8", "PGHOST": W, "PGUSER": "bench", "PGDATABASE": "postgres", "TMPDIR": W}
DATA, COPY = f"{W}/data", f"{W}/copy"

# Where the servers' user can reach them.
for name, key in (("walvis", "WALVIS_BIN"), ("before", "WALVIS_BEFORE_BIN"), ("s3_server", "BENCH_S3")):
    if env_of(key):
        shutil.copy(os.environ[key], f"{W}/{name}")
BIN["walvis"], BENCH_S3 = f"{W}/walvis", f"{W}/s3_server"
if BIN["before"]:
    BIN["before"] = f"{W}/before"
WALVIS = ("walvis", "before")

# ---- the backlog -------------------------------------------------------------------------------------------------------------

def conf(data, text):
    with open(f"{data}/postgresql.auto.conf", "w") as f:
        f.write(text)
    own(f"{data}/postgresql.auto.conf")

# pgbench's ordinary transaction, but the filler column is not blank: its WAL compresses about three times.
FILLER = "md5({0}) || left(md5({1}), 16)"
LOAD = r"""
\set aid random(1, 100000 * 50)
\set bid random(1, 50)
\set tid random(1, 500)
\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta, filler = FILLER WHERE aid = :aid;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = :bid;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (:tid, :bid, :aid, :delta, CURRENT_TIMESTAMP);
END;
""".replace("FILLER", FILLER.format("random()::text", "random()::text"))
ROWS = ("insert into pgbench_branches select n, 0 from generate_series(1, 50) n; insert into pgbench_tellers select n, (n - 1) / 10 + 1, 0 from generate_series(1, 500) n; "
        "insert into pgbench_accounts select n, (n - 1) / 100000 + 1, 0, FILLER from generate_series(1, 5000000) n").replace("FILLER", FILLER.format("n::text", "(-n)::text"))

COMMON = f"listen_addresses = ''\nunix_socket_directories = '{W}'\nwal_keep_size = 1000GB\nmax_wal_size = 1000GB\ncheckpoint_timeout = 1d\nshared_buffers = 256MB\n"

def ready():
    try:
        return sum(n.endswith(".ready") for n in os.listdir(f"{DATA}/pg_wal/archive_status"))
    except FileNotFoundError:
        return 0

def start(data, env=None):
    server = subprocess.Popen([f"{PG}/postgres", "-D", data], env=dict(BASE, **(env or {})), stdout=subprocess.DEVNULL,
                              stderr=open(f"{W}/server.log", "ab"), start_new_session=True, **DEMOTE)
    servers.append(server)
    return server

def wait_for(what, condition, limit=600, pause=0.02):
    until = time.monotonic() + limit
    while not condition():
        if time.monotonic() > until:
            raise RuntimeError(f"{what}: not within {limit} s; see {W}/server.log:\n" + "".join(open(f"{W}/server.log", errors="replace").readlines()[-15:]))
        time.sleep(pause)

def accepts():
    return subprocess.run([f"{PG}/pg_isready", "-q"], env=BASE, **DEMOTE).returncode == 0

def stop(server, how=signal.SIGINT):
    server.send_signal(how)
    server.wait(120)
    servers.remove(server)

def make_backlog():
    own(W)
    run([f"{PG}/initdb", "-D", DATA, "-A", "trust", "-N", "-U", "bench", f"--wal-segsize={args.segment_mib}"])
    conf(DATA, COMMON + "archive_mode = on\narchive_command = ''\nfsync = off\nsynchronous_commit = off\nfull_page_writes = on\n")
    server = start(DATA)
    wait_for("the server starts", accepts)
    run([f"{PG}/pgbench", "-i", "-I", "dt"])
    run([f"{PG}/psql", "-qAtc", ROWS])
    run([f"{PG}/pgbench", "-i", "-q", "-I", "vp", "-s", "50"])
    # What follows is a backup and the load, nothing of its initial copy.
    run([f"{PG}/psql", "-qAtc", "select pg_switch_wal()"])
    status = f"{DATA}/pg_wal/archive_status"
    waiting = lambda: {n[:24] for n in os.listdir(status) if re.fullmatch("[0-9A-F]{24}.ready", n)}
    old = waiting()
    run([f"{PG}/pg_basebackup", "-D", COPY, "-X", "fetch", "-c", "fast"])
    # `fetch` only because `none` waits for the archiver: the WAL is to come from the archive.
    for n in os.listdir(f"{COPY}/pg_wal"):
        if re.fullmatch("[0-9A-F]{24}", n):
            os.remove(f"{COPY}/pg_wal/{n}")
    load = subprocess.Popen([f"{PG}/pgbench", "-n", "-c", "4", "-j", "2", "-T", "3600", "-f", own_text(f"{W}/load.sql", LOAD)], env=BASE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **DEMOTE)
    wait_for("the backlog", lambda: len(waiting() - old) >= args.segments, 1800, 0.2)
    load.terminate()  # SIGINT is ignored by what a shell started in the background.
    load.wait()
    stop(server)
    return sorted(waiting() - old)[:args.segments]

def settle_memory(files):
    """Files into the page cache, and memory that nobody uses into the machine: hosts of virtual machines take it back, and then
    whoever touches a page first pays for it, ten times and more what it usually costs, whatever tool that happens to be."""
    for path in files:
        with open(path, "rb", buffering=0) as f:
            while f.read(1 << 20):
                pass
    free = int(re.search(r"MemFree:\s+(\d+)", open("/proc/meminfo").read())[1]) << 10
    touch = f"import mmap; mmap.mmap(-1, {min(free // 2, 2 << 30)}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x8000)"  # MAP_POPULATE
    subprocess.run([sys.executable, "-c", touch], check=True)

def files_of(directory):
    return [os.path.join(d, f) for d, _, files in os.walk(directory) for f in files]

def reset_status(names):
    status = f"{DATA}/pg_wal/archive_status"
    for n in os.listdir(status):
        os.remove(f"{status}/{n}")
    # What is not for this run counts as archived long ago.
    every = [n for n in os.listdir(f"{DATA}/pg_wal") if re.fullmatch("[0-9A-F]{24}", n)]
    for n in every:
        open(f"{status}/{n}.{'ready' if n in names else 'done'}", "w").close()
    own(status)

# ---- what a tool costs -------------------------------------------------------------------------------------------------------

def stat_of(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return int(fields[1]), sum(int(x) for x in fields[13:15]) / TICK  # parent; CPU of children it waited for

def descendants(top):
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parents.setdefault(stat_of(entry)[0], []).append(int(entry))
            except (OSError, IndexError):
                pass
    found, open_ = [], [top]
    while open_:
        for pid in parents.get(open_.pop(), []):
            found.append(pid)
            open_.append(pid)
    return found

class Watch:
    """Samples the memory of a tool's processes; reaps orphans and counts their CPU time."""
    def __init__(self, marks):
        self.marks, self.largest, self.together = marks, 0, 0
        self.orphans_cpu = 0.0
        self.reap_all()  # What earlier work left behind is not ours.
        self.orphans_cpu = 0.0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.loop)
        self.thread.start()
    def loop(self):
        while not self.ended.wait(0.05):
            self.sample()
    def sample(self):
        together = 0
        for pid in descendants(os.getpid()):
            try:
                exe = os.readlink(f"/proc/{pid}/exe")
                line = open(f"/proc/{pid}/cmdline", "rb").read().replace(b"\0", b" ").decode(errors="replace")
                if not any(m in exe or m in line for m in self.marks) or "/postgres" in exe or exe.endswith(("dash", "bash")):
                    continue
                text = open(f"/proc/{pid}/status").read()
                peak, now = (int(re.search(rf"{k}:\s+(\d+)", text)[1]) / 1024 for k in ("VmHWM", "VmRSS"))
                self.largest, together = max(self.largest, peak), together + now
            except (OSError, TypeError):
                pass
        self.together = max(self.together, together)
        self.reap()
    def reap(self):
        for pid in self.orphans():
            try:
                done, _, usage = os.wait4(pid, os.WNOHANG)
                if done:
                    self.orphans_cpu += usage.ru_utime + usage.ru_stime
            except OSError:
                pass
    def reap_all(self):
        # Helpers end by themselves.
        wait_for("helpers end", lambda: self.reap() or not self.orphans(), 60)
    def end(self):
        self.ended.set()
        self.thread.join()
        self.reap_all()
    @staticmethod
    def orphans():
        known = {s.pid for s in servers}
        return [p for p in descendants(os.getpid()) if p not in known and stat_or(p) == os.getpid()]

def usage():
    """CPU seconds of all children that were waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime

def cpu_of(process):
    """CPU seconds of a process itself; none where there is no process."""
    if not process:
        return 0.0
    with open(f"/proc/{process.pid}/stat") as f:
        return sum(int(x) for x in f.read().rsplit(")", 1)[1].split()[11:13]) / TICK

def stat_or(pid):
    try:
        return stat_of(pid)[0]
    except (OSError, IndexError):
        return -1

def size_of(directory):
    return sum(os.lstat(f).st_size for f in files_of(directory))

# ---- the tools ---------------------------------------------------------------------------------------------------------------

class S3:
    """The tests' S3 server with a delay."""
    def __init__(self):
        self.dir = own(tempfile.mkdtemp(prefix="s3-", dir=W))
        # It is on the same cores: it had better not ask the kernel for fresh memory with every request.
        keeps = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
        self.process = subprocess.Popen([BENCH_S3, "--tls", "--delay-ms", str(args.delay_ms)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, env=dict(BASE, TMPDIR=self.dir, **keeps), **DEMOTE)
        servers.append(self.process)
        self.about = {}
        for line in self.process.stdout:
            name, _, value = line.strip().partition("=")
            self.about[name] = value
            if name == "READY":
                break
    def __getattr__(self, name):
        return self.about[name]
    def stop(self):
        self.process.stdin.close()
        self.process.wait(30)
        servers.remove(self.process)
        shutil.rmtree(self.dir, ignore_errors=True)

def tool(name, store, place, s3):
    """Environment, set-up commands (run with the server up), archive and restore command, where the stored bytes are."""
    env, b = {}, BIN[name]
    if s3:
        env = {"AWS_ACCESS_KEY_ID": s3.ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": s3.SECRET_KEY, "AWS_REGION": s3.REGION, "AWS_DEFAULT_REGION": s3.REGION,
               "AWS_EC2_METADATA_DISABLED": "true", "AWS_CA_BUNDLE": s3.CA_FILE, "SSL_CERT_FILE": s3.CA_FILE, "AWS_ENDPOINT_URL": s3.ENDPOINT}
    if name in WALVIS:
        env |= {"WALVIS_KEY_FILE": f"{place}/key", "WALVIS_REPOSITORY": f"s3://{s3.BUCKET}/walvis" if s3 else f"file://{place}/repo"}
        if s3:
            env |= {"WALVIS_S3_ENDPOINT": s3.ENDPOINT, "WALVIS_S3_PATH_STYLE": "true", "WALVIS_S3_CA_FILE": s3.CA_FILE, "WALVIS_S3_REGION": s3.REGION}
        return env, [[b, "key", "generate", f"{place}/key"], [b, "init"]], f"{b} push-wal %p", f"{b} fetch-wal %f %p"
    if name == "pgbackrest":
        lines = ["[global]", f"lock-path={place}/lock", f"spool-path={place}/spool", "log-level-file=off", "log-level-console=error", f"log-path={place}/log",
                 "archive-async=y", f"process-max={os.cpu_count()}", "compress-type=zst", "compress-level=1", "repo1-cipher-type=aes-256-cbc",
                 "repo1-cipher-pass=0123456789abcdef0123456789abcdef", f"repo1-path={'/pgbackrest' if s3 else place + '/repo'}"]
        if s3:
            lines += ["repo1-type=s3", f"repo1-s3-bucket={s3.BUCKET}", "repo1-s3-endpoint=" + s3.ENDPOINT.split("//")[1], f"repo1-s3-key={s3.ACCESS_KEY}",
                      f"repo1-s3-key-secret={s3.SECRET_KEY}", f"repo1-s3-region={s3.REGION}", "repo1-s3-uri-style=path", "repo1-storage-verify-tls=n"]  # it knows no certificates of addresses
        lines += ["[main]", f"pg1-path={DATA}", f"pg1-socket-path={W}", "pg1-user=bench", "pg1-database=postgres"]
        with open(f"{place}/pgbackrest.conf", "w") as f:
            f.write("\n".join(lines) + "\n")
        own(place)
        call = f"{b} --config={place}/pgbackrest.conf --stanza=main"
        return env, [(call + " stanza-create").split()], f"{call} archive-push %p", f"{call} archive-get %f %p"
    if name == "walrus":
        env |= {"WALG_COMPRESSION_METHOD": "zstd", "WALG_LIBSODIUM_KEY": "0123456789abcdef0123456789abcdef" * 2, "WALG_LIBSODIUM_KEY_TRANSFORM": "hex"}
        env |= {"WALG_S3_PREFIX": f"s3://{s3.BUCKET}/walrus", "AWS_S3_FORCE_PATH_STYLE": "true", "AWS_ENDPOINT": s3.ENDPOINT, "WALG_S3_CA_CERT_FILE": s3.CA_FILE} if s3 else {"WALG_FILE_PREFIX": f"{place}/repo"}
        return env, [["mkdir", "-p", f"{place}/repo"]], f"{b} wal-push %p", f"{b} wal-fetch %f %p"
    if name == "barman":
        common = f"--endpoint-url {s3.ENDPOINT}"
        return env, [], f"{b}/barman-cloud-wal-archive {common} --gzip s3://{s3.BUCKET}/barman main %p", f"{b}/barman-cloud-wal-restore {common} s3://{s3.BUCKET}/barman main %f %p"
    return env, [["mkdir", "-p", f"{place}/repo"]], f"cp %p {place}/repo/%f && sync {place}/repo/%f {place}/repo", f"cp {place}/repo/%f %p"

def loop(commands, env, directory, shells=True):
    """Runs commands one after another, each in a shell of its own as the server does, or all in one; seconds."""
    lines = (f"/bin/sh -c {shlex.quote(c)} || exit 1\n" if shells else f"{c} || exit 1\n" for c in commands)
    path = own_text(f"{W}/loop.sh", "".join(lines))
    begin = time.monotonic()
    process = subprocess.Popen(["/bin/sh", path], env=dict(BASE, **env), cwd=directory, stderr=subprocess.PIPE, text=True, **DEMOTE)
    servers.append(process)  # Nobody else is to wait for it.
    _, said = process.communicate()
    servers.remove(process)
    took = time.monotonic() - begin
    if process.returncode != 0:
        raise RuntimeError(f"exit status {process.returncode}: {said[-2000:]}")
    return took

def own_text(path, text):
    with open(path, "w") as f:
        f.write(text)
    return own(path)

def supports(name, store):
    return not (name == "barman" and store == "file") and not (name == "cp" and store == "s3")

MARKS = {"walvis": ["walvis"], "before": ["before"], "pgbackrest": ["pgbackrest"], "walrus": ["wal-rus"], "barman": ["barman-cloud"], "cp": ["/cp"]}

def bench(name, store, names):
    """One round: backlog, feed, recovery. A dictionary of figures."""
    figures = {}
    place = own(tempfile.mkdtemp(prefix=f"{name}-", dir=W))
    marks = [BIN["barman"]] if name == "barman" else [BIN[name]]
    s3 = S3() if store == "s3" else None
    try:
        env, setup, archive, restore = tool(name, store, place, s3)
        reset_status(names)
        conf(DATA, COMMON + "archive_mode = on\narchive_command = ''\n")
        server = start(DATA, env)
        wait_for("the server starts", accepts)
        for command in setup:
            run(command, env, cwd=DATA)
        # --- the archiver's backlog
        conf(DATA, COMMON + f"archive_mode = on\narchive_command = '{archive}'\n")
        settle_memory([f"{DATA}/pg_wal/{n}" for n in names])
        archiver = next(p for p in descendants(server.pid) if b"archiver" in open(f"/proc/{p}/cmdline", "rb").read())
        cpu = stat_of(archiver)[1]
        watch = Watch(marks)
        server_cpu = cpu_of(s3 and s3.process)
        begin = time.monotonic()
        server.send_signal(signal.SIGHUP)
        wait_for(f"{name} archives", lambda: ready() == 0)
        figures["push seg/s"] = len(names) / (time.monotonic() - begin)
        watch.end()
        figures["push CPU ms"] = (stat_of(archiver)[1] - cpu + watch.orphans_cpu) * 1e3 / len(names)
        if s3:
            figures["push store CPU ms"] = (cpu_of(s3.process) - server_cpu) * 1e3 / len(names)
        figures["push MiB largest"], figures["push MiB together"] = watch.largest, watch.together
        figures["stored MiB"] = size_of(s3.dir if s3 else f"{place}/repo") / (1 << 20)
        stop(server, signal.SIGQUIT)
        if name in WALVIS and len(names) > 12:
            # What a call costs that finds its file on record. One call leaves the others behind, as the archiver's does.
            few = names[:12]
            reset_status(few)
            push = [f"{BIN[name]} push-wal pg_wal/{n}" for n in few]
            loop(push[:1], env, DATA)
            wait_for("records", lambda: all(os.path.exists(f"{DATA}/pg_wal/walvis/pushed/{n}") for n in few[1:]), 60)
            figures["record ms"] = min(loop(push[1:], env, DATA, False) for _ in range(5)) * 1e3 / len(push[1:])
            figures["true ms"] = min(loop(["/bin/true"] * 11, env, DATA, False) for _ in range(5)) * 1e3 / 11
            subprocess.run(["rm", "-rf", f"{DATA}/pg_wal/walvis"], check=True)
        # --- a recovery's questions, one after another, as the server asks them
        feed = f"{W}/feed"
        shutil.rmtree(feed, ignore_errors=True)
        os.makedirs(f"{feed}/pg_wal")
        os.makedirs(f"{feed}/global")
        shutil.copy(f"{DATA}/global/pg_control", f"{feed}/global/pg_control")
        open(f"{feed}/recovery.signal", "w").close()
        own(feed)
        pgb = restore.replace(f"--stanza=main", f"--stanza=main --pg1-path={feed}") if name == "pgbackrest" else restore
        ask = lambda n: "rm -f pg_wal/RECOVERYXLOG && " + pgb.replace("%f", n).replace("%p", "pg_wal/RECOVERYXLOG")
        settle_memory(files_of(s3.dir if s3 else f"{place}/repo"))
        watch = Watch(marks)
        cpu, server_cpu = usage(), cpu_of(s3 and s3.process)
        figures["fetch seg/s"] = len(names) / loop([ask(n) for n in names], env, feed)
        watch.end()
        figures["fetch CPU ms"] = (usage() - cpu) * 1e3 / len(names)  # Orphans that were reaped are in it.
        if s3:
            figures["fetch store CPU ms"] = (cpu_of(s3.process) - server_cpu) * 1e3 / len(names)
        figures["fetch MiB largest"], figures["fetch MiB together"] = watch.largest, watch.together
        for n in (names[0], names[len(names) // 2], names[-1]):
            loop([ask(n)], env, feed)
            subprocess.run(["cmp", f"{feed}/pg_wal/RECOVERYXLOG", f"{DATA}/pg_wal/{n}"], check=True)
        if name in WALVIS and len(names) > 12:
            # What a call costs whose segment a helper has brought already, with nothing left that the helper could do meanwhile.
            loop([ask(names[-13])], env, feed)
            few = names[-12:]
            wait_for("segments in the spool", lambda: all(os.path.exists(f"{feed}/pg_wal/walvis/fetched/{n}.ok") for n in few), 60)
            fetch = [restore.replace("%f", n).replace("%p", f"pg_wal/{n}.new") for n in few]  # Removing the last one is the server's work.
            figures["hit ms"] = loop(fetch, env, feed, False) * 1e3 / len(few)
        # --- a recovery
        if name != "barman":
            figures["recovery s"] = recover(pgb.replace(feed, f"{W}/recovery"), env, names)
    finally:
        if s3:
            s3.stop()
        for left in [s for s in servers]:
            left.kill()
            left.wait()
            servers.remove(left)
        subprocess.run(["rm", "-rf", place], check=False)
    return figures

def recover(restore, env, names):
    """Recovers the copy from the archive up to the last segment of the backlog; seconds."""
    data = f"{W}/recovery"
    shutil.rmtree(data, ignore_errors=True)
    subprocess.run(["cp", "-a", COPY, data], check=True)
    settle_memory(files_of(data))
    open(f"{data}/recovery.signal", "w").close()
    conf(data, COMMON + f"archive_mode = off\nhot_standby = off\nfsync = off\nrestore_command = '{restore}'\nrecovery_target_timeline = 'current'\n")
    own(data)
    begin = time.monotonic()
    server = start(data, env)
    # It promotes when the archive ends: the history of the new timeline is the sign.
    wait_for("recovery", lambda: os.path.exists(f"{data}/pg_wal/00000002.history") or server.poll() is not None)
    took = time.monotonic() - begin
    ended = server.poll()
    if ended is not None:
        raise RuntimeError(f"the server gave up in recovery: {ended}")
    wait_for("promotion", accepts)
    stop(server, signal.SIGQUIT)
    shutil.rmtree(data, ignore_errors=True)
    return took

def startup(path, arguments, rounds=100):
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        pid = os.posix_spawn(path, [path, *arguments], BASE, file_actions=[(os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)])
        os.waitpid(pid, 0)
        times.append((time.perf_counter() - begin) * 1e3)
    return min(times), statistics.median(times)

def version(name):
    if name in ("cp",):
        return ""
    path = f"{BIN[name]}/barman-cloud-wal-archive" if name == "barman" else BIN[name]
    for flag in ("--version", "version"):
        done = subprocess.run([path, flag], capture_output=True, text=True)
        if done.returncode == 0:
            return done.stdout.strip().splitlines()[0]
    return "?"

def limit(names):
    done = subprocess.run([env_of("BENCH_LIMIT"), "--bench", *(f"{DATA}/pg_wal/{n}" for n in names[max(1, len(names) // 12) :: max(1, len(names) // 6)][:6])], capture_output=True, text=True, check=True)
    line = next(l for l in done.stdout.splitlines() if l.startswith("limit:"))
    rate, each = re.search(r"limit: ([\d.]+) segments/s on \d+ threads, ([\d.]+) ms of CPU", line).groups()
    return float(rate), float(each), done.stdout

results, limits = {}, []
try:
    cpu = next((l.split(":", 1)[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), platform.processor())
    say(f"{time.strftime('%F %T %Z', time.gmtime())}; {os.cpu_count()} x {cpu}; Linux {platform.release()}; load {' '.join(f'{x:.1f}' for x in os.getloadavg())}")
    tools = [t for t in args.tools.split(",") if BIN.get(t)]
    say("tools: " + "; ".join(f"{t} {version(t)}".strip() for t in tools) + "; not found: " + (", ".join(t for t in args.tools.split(",") if t not in tools) or "none"))
    say(run([f"{PG}/postgres", "--version"]).strip() + f"; {args.segments} segments of {args.segment_mib} MiB, {args.rounds} rounds, {args.delay_ms} ms per S3 request, TLS")
    for t in tools:
        path = f"{BIN[t]}/barman-cloud-wal-archive" if t == "barman" else BIN[t]
        least, usual = startup(path, ["--version"] if t != "pgbackrest" else ["version"], 5 if t == "barman" else 100)
        say(f"start-up of {t}: {least:.2f} ms at best, {usual:.2f} ms median; {os.path.getsize(os.path.realpath(path)):,} bytes")
    least, usual = startup("/bin/true", [])
    say(f"start-up of /bin/true: {least:.2f} ms at best, {usual:.2f} ms median")
    names = make_backlog()
    for r in range(args.rounds):
        for store in args.stores.split(","):
            rate, each, text = limit(names)
            limits.append((rate, each))
            if r == 0 and store == args.stores.split(",")[0]:
                say(text.strip())
            for t in tools if r % 2 == 0 else tools[::-1]:  # Whoever comes after the load finds memory that nobody has touched.
                if not supports(t, store):
                    continue
                try:
                    figures = bench(t, store, names[:15] if t == "barman" else names)
                except RuntimeError as e:
                    say(f"round {r + 1} {store} {t}: FAILED: {e}")
                    continue
                results.setdefault((store, t), []).append(figures)
                say(f"round {r + 1} {store:4} {t:10} limit {rate:.1f} seg/s, {each:.1f} ms; load {os.getloadavg()[0]:.1f}; " + ", ".join(f"{k} {v:.2f}" for k, v in figures.items()))
    best_limit, best_each = max(l[0] for l in limits), min(l[1] for l in limits)
    say(f"\nlimit (zstd 1, ChaCha20-Poly1305, BLAKE3; all cores): {best_limit:.1f} seg/s, {best_each:.1f} ms of CPU time per segment; best of {len(limits)}")
    columns = ["push seg/s", "push CPU ms", "push MiB largest", "push MiB together", "stored MiB", "fetch seg/s", "fetch CPU ms", "fetch MiB largest", "recovery s"]
    say("| store | tool | " + " | ".join(columns) + " | push / limit | CPU / limit |")
    say("|---" * (len(columns) + 4) + "|")
    for (store, t), rounds in results.items():
        cell = {}
        for c in columns:
            values = [f[c] for f in rounds if c in f]
            if values:
                cell[c] = max(values) if "seg/s" in c or "MiB" in c else min(values)
        say(f"| {store} | {t} | " + " | ".join(f"{cell[c]:.1f}" if c in cell else "–" for c in columns)
            + f" | {cell['push seg/s'] / best_limit:.2f} | {cell['push CPU ms'] / best_each:.2f} |")
    for (store, t), rounds in results.items():
        for key, what in (("record ms", "push-wal of a segment that is on record"), ("hit ms", "fetch-wal of a segment that is in the spool"), ("true ms", "/bin/true in their place")):
            values = [f[key] for f in rounds if key in f]
            if values:
                say(f"{t} {store}: {what}, its start by a shell included: {min(values):.2f} ms")
        for key, what in (("push store CPU ms", "pushed"), ("fetch store CPU ms", "fetched")):
            values = [f[key] for f in rounds if key in f]
            if values:
                say(f"{t} {store}: CPU time of the S3 server, on the same cores, per segment {what}: {min(values):.1f} ms")
finally:
    for left in servers:
        left.kill()
        left.wait()
    if not args.work:
        shutil.rmtree(W, ignore_errors=True)
