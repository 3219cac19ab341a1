/** A real mount whose server stops, freezes or disappears behind a black hole: every system call ends in time and rightly. */
import assert from "node:assert/strict";
import { MountHouse } from "../e2e/mount_house.ts";
import {
  assertNoneStuck,
  checkCalls,
  everyCall,
  faultTest,
  furnish,
  mode,
  runFor,
  sh,
  waitFor,
} from "./fault_house.ts";

const LIMITS = `[mount]\nrequest_timeout = "3s"\nread_timeout = "6s"\n`;
/** The time limit above, and what a busy machine may add. */
const LIMIT_MS = 4500;

faultTest("server stopped: what was looked at works, the rest says so at once; then all works again", async () => {
  await using house = new MountHouse(100_000, LIMITS);
  await house.serve();
  const dir = await furnish(house, "a");
  await house.killServer();
  checkCalls(await everyCall(dir, 20), LIMIT_MS, "away");
  await assertNoneStuck(house);
  await house.serve();
  await waitFor("the mount is online", 20_000, async () => await mode(house, "a") === "online");
  checkCalls(await everyCall(dir, 20), LIMIT_MS, "none");
  assert.ok(await house.drain("a"));
});

faultTest("server frozen: every call ends within the configured time; then all works again", async () => {
  await using house = new MountHouse(100_000, LIMITS);
  await house.serve();
  const dir = await furnish(house, "a");
  house.signalServer("SIGSTOP");
  checkCalls(await everyCall(dir, 20), LIMIT_MS, "unnoticed");
  await assertNoneStuck(house);
  // Noticed by now: nothing waits for it any more.
  assert.notEqual(await mode(house, "a"), "online");
  checkCalls(await everyCall(dir, 20), 2000, "away");
  house.signalServer("SIGCONT");
  await waitFor("the mount is online", 30_000, async () => await mode(house, "a") === "online");
  checkCalls(await everyCall(dir, 20), LIMIT_MS, "none");
  assert.ok(await house.drain("a"));
  assert.equal(await sh(`cat "$1/elsewhere/f" | wc -l`, dir), "9");
});

/** A network of its own for the mount: two ends of a cable, of which the far one can be pulled. */
class Cable implements AsyncDisposable {
  readonly name = `afs${Deno.pid % 100_000}`;
  readonly #net = `10.213.${Deno.pid % 250}`;
  get serverHost(): string {
    return `${this.#net}.1`;
  }
  get prefix(): string[] {
    return ["nsenter", `--net=/run/netns/${this.name}`];
  }
  /** Null, or why it can't be had here. */
  async lay(): Promise<string | null> {
    const made = await runFor(10_000, "sh", [
      "-ec",
      `ip netns add ${this.name}; ip link add ${this.name}h type veth peer name ${this.name}m netns ${this.name}
       ip addr add ${this.#net}.1/24 dev ${this.name}h; ip link set ${this.name}h up
       ip -n ${this.name} addr add ${this.#net}.2/24 dev ${this.name}m; ip -n ${this.name} link set ${this.name}m up; ip -n ${this.name} link set lo up`,
    ]);
    return made.code === 0 ? null : made.err.trim();
  }
  /** Packets vanish: nothing says so to either side. */
  async pull(): Promise<void> {
    await sh(`ip link set "$1" down`, `${this.name}h`);
  }
  async plug(): Promise<void> {
    await sh(`ip link set "$1" up`, `${this.name}h`);
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await runFor(10_000, "sh", ["-c", `ip link del ${this.name}h; ip netns del ${this.name}`]);
  }
}

faultTest("network black-holed: every call ends within the configured time; then all works again", async () => {
  await using cable = new Cable();
  const obstacle = await cable.lay();
  if (obstacle !== null) {
    console.log(`no network namespace here: ${obstacle}`);
    return;
  }
  await using house = new MountHouse(100_000, {
    config: `[daemon]\ninsecure = true\n${LIMITS}`,
    host: cable.serverHost,
  });
  await house.serve();
  const dir = await furnish(house, "a", { prefix: cable.prefix });
  await cable.pull();
  checkCalls(await everyCall(dir, 20), LIMIT_MS, "unnoticed");
  await assertNoneStuck(house);
  checkCalls(await everyCall(dir, 20), 2000, "away");
  await cable.plug();
  await waitFor("the mount is online", 30_000, async () => await mode(house, "a") === "online");
  checkCalls(await everyCall(dir, 20), LIMIT_MS, "none");
  assert.ok(await house.drain("a"));
});

/** Begins a call that can't be answered, sends the signal, and prints how long the end took (ms) and how it ended (Python has a handler for SIGINT). */
const SIGNALLED = `
import os, signal, subprocess, sys, time
body = {
  "open": "os.open(sys.argv[1] + '/unseen/f1', os.O_RDONLY)",
  "read": "os.read(os.open(sys.argv[1] + '/seen/f9', os.O_RDONLY), 1000)",
  "readdir": "os.listdir(sys.argv[1] + '/unseen')",
  "stat": "os.stat(sys.argv[1] + '/unseen/f2')",
  "mkdir": "os.mkdir(sys.argv[1] + '/unseen/made')",
}[sys.argv[2]]
child = subprocess.Popen([sys.executable, "-c", "import os, sys; print('go', flush=True); " + body, sys.argv[1]], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
child.stdout.readline()
time.sleep(0.5)
assert child.poll() is None, "the call must wait"
start = time.monotonic()
child.send_signal(int(sys.argv[3]))
child.wait(20)
print(round((time.monotonic() - start) * 1000), child.returncode)
`;

faultTest("whoever waits for a frozen server dies at once when told to", async () => {
  await using house = new MountHouse(100_000, `[mount]\nrequest_timeout = "20s"\nread_timeout = "20s"\n`);
  await house.serve();
  const dir = await furnish(house, "a");
  house.signalServer("SIGSTOP");
  const tries: Promise<void>[] = [];
  for (const call of ["open", "read", "readdir", "stat", "mkdir"]) {
    // A read of pages waits for the page: the kernel lets only what ends the process interrupt that.
    // The kernel lets only one at a time into a folder it does not know: the others wait in it, killable too.
    for (const signal of call === "mkdir" ? [9] : call === "read" ? [9, 15] : [9, 15, 2]) {
      tries.push((async () => {
        const ran = await runFor(30_000, "python3", ["-c", SIGNALLED, dir, call, String(signal)]);
        assert.equal(ran.code, 0, `${call}, signal ${signal}: ${ran.err}`);
        const [ms = NaN, code] = ran.out.trim().split(" ").map(Number);
        assert.equal(code, -signal, `${call}, signal ${signal}`);
        assert.ok(ms < 1500, `${call} went on for ${ms} ms after signal ${signal}`);
      })());
    }
  }
  await Promise.all(tries);
  house.signalServer("SIGCONT");
});

faultTest("a killed mount is back within two seconds with what was written", async () => {
  await using house = new MountHouse(100_000, LIMITS);
  await house.serve();
  const dir = await furnish(house, "a");
  await sh(`echo kept > "$1/seen/kept"; sync "$1/seen/kept"`, dir);
  await house.killServer();
  await sh(`echo later > "$1/seen/later"; sync "$1/seen/later"`, dir);
  await house.serve();
  await house.killMount("a");
  const began = Date.now();
  await house.mount("a");
  assert.equal(await sh(`cat "$1/seen/kept" "$1/seen/later"`, dir), "kept\nlater");
  const took = Date.now() - began;
  assert.ok(took < 2000, `serving again took ${took} ms`);
  assert.ok(await house.drain("a"));
});

/** So many requests of programs wait for their answers in mount a. */
async function waiting(house: MountHouse, requests: number): Promise<void> {
  const inFlight = async () => ((await house.control("a", "stats"))["fuse"] as { inFlight: number }).inFlight;
  for (let i = 0; i < 200 && await inFlight() < requests; i++) await new Promise((resolve) => setTimeout(resolve, 50));
}

faultTest(
  "a mount that is killed while the kernel waits for its answers lets go of everybody and is back at once",
  async () => {
    await using house = new MountHouse(100_000, `[mount]\nrequest_timeout = "20s"\nread_timeout = "20s"\n`);
    await house.serve();
    const dir = await furnish(house, "a");
    house.signalServer("SIGSTOP");
    const waits = (call: string) => runFor(30_000, "python3", ["-c", call, dir]);
    const read = waits("import os, sys; os.read(os.open(sys.argv[1] + '/seen/f9', os.O_RDONLY), 1000)");
    const looked = waits("import os, sys; os.stat(sys.argv[1] + '/unseen/f1')");
    await waiting(house, 2);
    // Its change makes the next read count for the access time; who opens it does not wait for the reader.
    await sh(`chmod 600 "$1/seen/f9"; exec 3< "$1/seen/f9"`, dir);
    const emptied = waits("import os, sys; os.open(sys.argv[1] + '/seen/f9', os.O_WRONLY | os.O_TRUNC)");
    await waiting(house, 3);
    const began = Date.now();
    await house.killMount("a");
    for (const ended of [await read, await looked, await emptied]) assert.match(ended.err, /\[Errno (103|107|5)\]/);
    house.signalServer("SIGCONT");
    await house.mount("a");
    assert.equal(await sh(`stat -c %a "$1/seen/f9"; wc -c < "$1/seen/f9"`, dir), "600\n300000");
    const took = Date.now() - began;
    assert.ok(took < 3000, `it took ${took} ms`);
  },
);
