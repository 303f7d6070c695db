/** The environment of a child: secrets of this process must not reach it by accident. */

/** What programs need to run as their user expects. */
const passed: ReadonlySet<string> = new Set([
  "HOME",
  "LANG",
  "LANGUAGE",
  "LOGNAME",
  "PATH",
  "SHELL",
  "TERM",
  "TMPDIR",
  "TZ",
  "USER"
])

const isPassed = (name: string): boolean => passed.has(name) || name.startsWith("LC_")

/** The variables that a child gets: those above, or all of them, and what is added to them. */
export const environmentOf = (
  inherited: Readonly<Record<string, string | undefined>>,
  inheritsAll: boolean,
  added: Readonly<Record<string, string>>
): Record<string, string> => {
  const env: Record<string, string> = {}
  for (const [name, value] of Object.entries(inherited)) {
    if (value !== undefined && (inheritsAll || isPassed(name))) env[name] = value
  }
  return { ...env, ...added }
}
