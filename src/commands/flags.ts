/** Reads the options of a command: from the command line, or else from the environment, or else their defaults. */
import * as HelpDoc from "@effect/cli/HelpDoc"
import * as Options from "@effect/cli/Options"
import * as ValidationError from "@effect/cli/ValidationError"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import {
  type CommandName,
  type OptionInfo,
  listOptions,
  type ListedOption,
  type RepeatedInfo,
  type SingleInfo,
  type SwitchInfo,
  type OptionsTable,
  variable
} from "./options/rows.js"
import { parse, problem } from "./parsers.js"

/** The written form of a value; `undefined` if the default applies. */
type Given = string | boolean | ReadonlyArray<string> | undefined

/** Returns the flags of a command, which are decoded together into the nested options. */
export const flags = <A, I>(
  command: CommandName,
  table: OptionsTable,
  schema: Schema.Schema<A, I>
): Options.Options<A> => {
  const listed = listOptions(table).filter(({ info }) => info.commands.includes(command))
  const decode = Schema.decodeUnknown(schema)
  return Options.all(listed.map(({ info }) => flag(info))).pipe(
    Options.mapEffect((given) =>
      Effect.mapError(decode(nested(table, listed, given)), (error) => {
        const { message = error.message, path = [] } = problem(error) ?? {}
        const wrong = listed.find(({ key, section }) => section === path[0] && key === path[1])
        return invalid(wrong === undefined ? message : expects(wrong.info, message))
      })
    )
  )
}

/** Reads the value of an option in the environment; `undefined` if the variable is not set. */
export const fromEnvironment = <A, I>(
  info: OptionInfo,
  schema: Schema.Schema<A, I>
): Effect.Effect<A | undefined, ValidationError.ValidationError> =>
  Effect.flatMap(environment(info.name), (text) =>
    text === undefined
      ? Effect.succeed(undefined)
      : Effect.mapError(parse(schema)(text), (expected) => invalid(expects(info, expected)))
  )

/** Fails because the command line is wrong. */
export const usageError = (message: string): Effect.Effect<never, ValidationError.ValidationError> =>
  Effect.fail(invalid(message))

const invalid = (message: string): ValidationError.ValidationError =>
  ValidationError.invalidValue(HelpDoc.p(message))

const expects = ({ name }: OptionInfo, expected: string): string =>
  `--${name} (or ${variable(name)}) takes ${expected}`

/** Puts each value at the path of its option. */
const nested = (
  table: OptionsTable,
  listed: ReadonlyArray<ListedOption>,
  given: ReadonlyArray<Given>
): Record<string, Record<string, Given>> => {
  const sections: Record<string, Record<string, Given>> = {}
  for (const section of Object.keys(table)) sections[section] = {}
  for (const [index, { key, section }] of listed.entries()) {
    const value = given[index]
    if (value !== undefined) sections[section] = { ...sections[section], [key]: value }
  }
  return sections
}

const flag = (info: OptionInfo): Options.Options<Given> => {
  switch (info.kind) {
    case "switch":
      return toggle(info)
    case "single":
      return single(info)
    case "repeated":
      return repeated(info)
  }
}

const toggle = (info: SwitchInfo): Options.Options<Given> =>
  Options.boolean(info.name).pipe(
    Options.withDescription(described(info)),
    Options.withFallbackConfig(Config.withDefault(Config.boolean(variable(info.name)), info.default))
  )

const single = (info: SingleInfo): Options.Options<Given> => {
  const given = info.isProgramWide
    ? text(info)
    : Options.withFallbackConfig(text(info), Config.string(variable(info.name)))
  return info.isRequired ? given : Options.map(Options.optional(given), Option.getOrUndefined)
}

const repeated = (info: RepeatedInfo): Options.Options<Given> =>
  Options.repeated(text(info)).pipe(
    Options.mapEffect((texts) =>
      texts.length > 0
        ? Effect.succeed(texts)
        : Effect.map(environment(info.name), (text) =>
            text === undefined ? undefined : separated(text, info.separator)
          )
    )
  )

const text = (info: SingleInfo | RepeatedInfo): Options.Options<string> =>
  Options.text(info.name).pipe(
    Options.withPseudoName(info.placeholder),
    Options.withDescription(described(info))
  )

const described = (info: OptionInfo): string => {
  const fallback = info.kind === "repeated" || info.default === undefined ? "" : ` (default: ${info.default})`
  const repeats = info.kind === "repeated" ? "; repeatable" : ""
  return `${info.description}${repeats}${fallback} [${variable(info.name)}]`
}

const separated = (text: string, separator: string): ReadonlyArray<string> =>
  text
    .split(separator)
    .map((one) => one.trim())
    .filter((one) => one !== "")

const environment = (name: string): Effect.Effect<string | undefined, ValidationError.ValidationError> =>
  Config.string(variable(name)).pipe(
    Config.withDefault(undefined),
    Effect.mapError(() => invalid(`${variable(name)} cannot be read`))
  )
