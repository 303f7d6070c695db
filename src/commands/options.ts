/** Options that the environment can set too: `--max-sessions` is `SHADOWCAT_MAX_SESSIONS` there. */
import * as HelpDoc from "@effect/cli/HelpDoc"
import * as Options from "@effect/cli/Options"
import * as ValidationError from "@effect/cli/ValidationError"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import type { Reader } from "./parsers.js"

/** The environment variable of an option. */
export const variable = (name: string): string => `SHADOWCAT_${name.toUpperCase().replaceAll("-", "_")}`

interface About<A> {
  readonly description: string
  /** What a value is called in the help. */
  readonly value: string
  readonly read: Reader<A>
}

/** An option that has a default. */
export const withDefault = <A>(name: string, fallback: string, about: About<A>): Options.Options<A> =>
  text(name, { ...about, description: `${about.description} (default: ${fallback})` }).pipe(
    Options.withDefault(fallback),
    Options.mapEffect(reading(name, about))
  )

/** An option that may be left out. */
export const optional = <A>(name: string, about: About<A>): Options.Options<A | undefined> =>
  orUndefined(name, about, text(name, about))

/** An option that may be left out, and that the environment does not set in its place. */
export const fromCommandLine = <A>(name: string, about: About<A>): Options.Options<A | undefined> =>
  orUndefined(name, about, described(name, about))

/** An option that must be given. */
export const required = <A>(name: string, about: About<A>): Options.Options<A> =>
  text(name, about).pipe(Options.mapEffect(reading(name, about)))

/** A switch. */
export const flag = (name: string, description: string): Options.Options<boolean> =>
  Options.boolean(name).pipe(
    Options.withDescription(`${description} [${variable(name)}]`),
    Options.withFallbackConfig(Config.boolean(variable(name)))
  )

/** A switch that is on unless it is set to false. */
export const onByDefault = (name: string, description: string): Options.Options<boolean> =>
  Options.boolean(name).pipe(
    Options.withDescription(`${description} (default: true) [${variable(name)}]`),
    Options.withFallbackConfig(Config.withDefault(Config.boolean(variable(name)), true))
  )

/** An option that may come many times; in the environment its values are separated. */
export const repeated = <A>(
  name: string,
  separator: string,
  about: About<A>
): Options.Options<ReadonlyArray<A>> =>
  described(name, about).pipe(
    Options.repeated,
    Options.mapEffect((texts) =>
      Effect.flatMap(texts.length > 0 ? Effect.succeed(texts) : separated(name, separator), (all) =>
        Effect.forEach(all, reading(name, about))
      )
    )
  )

/** The value that the environment has for an option. */
export const fromEnvironment = <A>(
  name: string,
  about: About<A>
): Effect.Effect<A | undefined, ValidationError.ValidationError> =>
  Effect.flatMap(environment(name), (text) =>
    text === undefined ? Effect.succeed(undefined) : reading(name, about)(text)
  )

const described = <A>(name: string, { description, value }: About<A>): Options.Options<string> =>
  Options.text(name).pipe(
    Options.withPseudoName(value),
    Options.withDescription(`${description} [${variable(name)}]`)
  )

const text = <A>(name: string, about: About<A>): Options.Options<string> =>
  Options.withFallbackConfig(described(name, about), Config.string(variable(name)))

const orUndefined = <A>(
  name: string,
  about: About<A>,
  given: Options.Options<string>
): Options.Options<A | undefined> =>
  given.pipe(
    Options.optional,
    Options.mapEffect(Option.match({ onNone: () => Effect.succeed(undefined), onSome: reading(name, about) }))
  )

const reading =
  <A>(name: string, { read }: About<A>) =>
  (given: string): Effect.Effect<A, ValidationError.ValidationError> =>
    Either.match(read(given), {
      onLeft: (expected) => Effect.fail(invalid(`--${name} (or ${variable(name)}) takes ${expected}`)),
      onRight: Effect.succeed
    })

const separated = (
  name: string,
  separator: string
): Effect.Effect<Array<string>, ValidationError.ValidationError> =>
  Effect.map(environment(name), (texts = "") =>
    texts
      .split(separator)
      .map((one) => one.trim())
      .filter((one) => one !== "")
  )

const environment = (name: string): Effect.Effect<string | undefined, ValidationError.ValidationError> =>
  Config.string(variable(name)).pipe(
    Config.withDefault(undefined),
    Effect.mapError(() => invalid(`${variable(name)} cannot be read`))
  )

const invalid = (message: string): ValidationError.ValidationError =>
  ValidationError.invalidValue(HelpDoc.p(message))
