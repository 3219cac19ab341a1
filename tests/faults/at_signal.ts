/** Long campaigns that are stopped from outside take down what they started: nothing below them would end by itself. */

/** Runs `takeDown` and ends the process at the first SIGINT, SIGTERM or SIGHUP, until disposed. */
export function endAtSignal(takeDown: () => Promise<void>): Disposable {
  let ending = false;
  const end = () => {
    if (ending) return;
    ending = true;
    void takeDown().catch((error) => console.error(error)).finally(() => Deno.exit(130));
  };
  const signals: readonly Deno.Signal[] = ["SIGINT", "SIGTERM", "SIGHUP"];
  for (const signal of signals) Deno.addSignalListener(signal, end);
  return {
    [Symbol.dispose]: () => {
      for (const signal of signals) Deno.removeSignalListener(signal, end);
    },
  };
}
