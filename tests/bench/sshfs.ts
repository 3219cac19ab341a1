/** sshfs of a local folder, over an sshd of our own: a free port of the loopback address, keys made for this run only. */
import { freePort, isMountPoint, shell, start } from "./house.ts";

/** A mounted sshfs. */
export interface MountedSshfs {
  /** sshfs, its ssh and the sshd. */
  readonly pids: readonly number[];
  readonly dir: string;
  /** The folder that it mounts, as the server sees it. */
  readonly source: string;
  stop(): Promise<void>;
}

const SSHD = "/usr/sbin/sshd";

/** Why there can't be one, as a sentence; null: nothing is missing. */
export async function sshfsObstacle(): Promise<string | null> {
  try {
    await shell(`command -v sshfs ssh ssh-keygen ${SSHD}`);
  } catch {
    return `sshfs, ssh or ${SSHD} is not installed`;
  }
  return Deno.uid() === 0 ? null : "sshd is started as root only";
}

/** Starts both below `folder`. All settings that bear on speed are the programs' own. */
export async function startSshfs(folder: string): Promise<MountedSshfs> {
  const dir = `${folder}/mnt`;
  const source = `${folder}/source`;
  await shell(
    'mkdir -p "$1/mnt" "$1/source"; cd "$1"; for k in host key; do ssh-keygen -q -t ed25519 -N "" -f $k; done',
    [folder],
  );
  const port = freePort();
  await Deno.writeTextFile(
    `${folder}/sshd_config`,
    [
      `Port ${port}`,
      "ListenAddress 127.0.0.1",
      `HostKey ${folder}/host`,
      "PidFile none",
      `AuthorizedKeysFile ${folder}/key.pub`,
      // The folder is below /tmp, which others may write to.
      "StrictModes no",
      "UsePAM no",
      "PasswordAuthentication no",
      "PermitRootLogin prohibit-password",
      "Subsystem sftp internal-sftp",
      "",
    ].join("\n"),
  );
  // Debian's sshd wants the folder that its service file makes; one that was not there goes again at the end.
  const separation = "/run/sshd";
  const made = await Deno.mkdir(separation, { mode: 0o755 }).then(() => true, () => false);
  const cleanups = [
    async () => {
      if (made) await Deno.remove(separation).catch(() => undefined);
    },
  ];
  const stop = async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  };
  try {
    const listens = () => Deno.connect({ hostname: "127.0.0.1", port }).then((c) => (c.close(), true), () => false);
    const server = await start([SSHD, "-D", "-e", "-f", `${folder}/sshd_config`], {}, listens, `${folder}/sshd.log`);
    cleanups.push(() => server.stop());
    const options = [
      `port=${port}`,
      `IdentityFile=${folder}/key`,
      "IdentitiesOnly=yes",
      "StrictHostKeyChecking=no",
      "UserKnownHostsFile=/dev/null",
      "BatchMode=yes",
    ].join(",");
    const user = await shell("id -un");
    const command = ["sshfs", "-f", "-F", "/dev/null", "-o", options, `${user}@127.0.0.1:${source}`, dir];
    const client = await start(command, {}, () => isMountPoint(dir), `${folder}/sshfs.log`);
    cleanups.push(async () => {
      await new Deno.Command("umount", { args: ["-l", dir], stderr: "null" }).output();
      await client.stop();
    });
    // It detaches itself from sshfs, so it is known by the key that only it has.
    const ssh = await shell('grep -lsF "IdentityFile=$1" /proc/[0-9]*/cmdline || true', [`${folder}/key`]);
    const pids = ssh.split("\n").map((path) => Number(path.split("/")[2]));
    return { pids: [...new Set([client.pid, server.pid, ...pids])].filter((pid) => pid > 1), dir, source, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
