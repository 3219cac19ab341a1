/** `anyfs completions`: prints the script that makes a shell complete our commands and flags. */
import { Argument } from "@commander-js/extra-typings";
import { script } from "@bomb.sh/tab";
import type { Context } from "./context.ts";
import type { CommandModule, Start } from "./module.ts";
import { example } from "./example.ts";

/**
 * Our own for bash: that of @bomb.sh/tab needs the bash-completion package and evaluates the words that were typed. Both
 * ask `anyfs complete`, whose lines are `value<TAB>description` and at the end `:directive`.
 */
const BASH = `# bash completion for anyfs
_anyfs() {
  local line value cur=\${COMP_WORDS[COMP_CWORD]}
  COMPREPLY=()
  while IFS= read -r line; do
    value=\${line%%$'\\t'*}
    case $value in
      '' | :[0-9]*) ;;
      "$cur"*) COMPREPLY+=("$value") ;;
    esac
  done < <(anyfs complete -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o default -F _anyfs anyfs
`;

function printScript(context: Context, shell: "bash" | "zsh" | "fish"): Promise<void> {
  if (shell === "bash") context.out.text(BASH);
  else script(shell, "anyfs", "anyfs");
  return Promise.resolve();
}

export const command: CommandModule = {
  configure(command, start: Start) {
    command
      .addArgument(new Argument("<shell>", "which shell").choices(["bash", "zsh", "fish"] as const))
      .action((shell) => start((context) => printScript(context, shell)));
    example(
      command,
      "source <(anyfs completions bash)",
      "Completion in this shell; put the line into ~/.bashrc to keep it.",
    );
  },
};
