# shellcheck shell=bash
# Reads the arguments of a script. Sourced after common.sh.
#
# A script declares what it takes, calls read_arguments, and finds every value in the variable that it has named:
#
#   option_flag --keep KEEP                            KEEP is true with --keep, false without
#   option_value --state STATE "a directory" .state    STATE is the value after --state, or the default
#   option_list --case SELECTED "a name"               SELECTED is an array of the values of every --case
#   words WORDS kubectl                                WORDS is an array of the arguments that are not options; all that
#                                                      follows the first word `kubectl` is taken as it is
#   rest ARGUMENTS                                     ARGUMENTS is an array of what follows `--`
#   read_arguments "$@"
#
# `--state=DIR` is the same as `--state DIR`. --help prints the comment at the top of the script. Anything that was not
# declared is an error.

# By option: its kind (flag, value or list), its variable, and the value that it needs, in words.
declare -A OPTION_KIND=() OPTION_VARIABLE=() OPTION_NEEDS=()
WORDS_VARIABLE='' FINAL_WORDS=() REST_VARIABLE=''

option_flag() { # option variable
    OPTION_KIND[$1]=flag OPTION_VARIABLE[$1]=$2
    printf -v "$2" %s false
}

option_value() { # option variable needs [default]
    OPTION_KIND[$1]=value OPTION_VARIABLE[$1]=$2 OPTION_NEEDS[$1]=$3
    printf -v "$2" %s "${4:-}"
}

option_list() { # option variable needs
    OPTION_KIND[$1]=list OPTION_VARIABLE[$1]=$2 OPTION_NEEDS[$1]=$3
    declare -ga "$2=()"
}

words() { # variable [final-word…]
    WORDS_VARIABLE=$1 FINAL_WORDS=("${@:2}")
    declare -ga "$1=()"
}

rest() { # variable
    REST_VARIABLE=$1
    declare -ga "$1=()"
}

read_arguments() { # argument…
    local option value is_first_word=true
    while (($# > 0)); do
        option=${1%%=*}
        case $1 in
            -h | --help)
                print_help "${BASH_SOURCE[-1]}"
                exit 0
                ;;
            --)
                [[ -n $REST_VARIABLE ]] || usage_error "unknown argument '--'"
                append_to "$REST_VARIABLE" "${@:2}"
                return
                ;;
            -*)
                case ${OPTION_KIND[$option]:-} in
                    '') usage_error "unknown option '$option'" ;;
                    flag)
                        [[ $1 == "$option" ]] || usage_error "'$option' takes no value"
                        printf -v "${OPTION_VARIABLE[$option]}" %s true
                        shift
                        continue
                        ;;
                esac
                if [[ $1 == "$option" ]]; then value=${2:-} && shift; else value=${1#*=}; fi
                [[ -n $value ]] || usage_error "'$option' needs ${OPTION_NEEDS[$option]}"
                if [[ ${OPTION_KIND[$option]} == list ]]; then
                    append_to "${OPTION_VARIABLE[$option]}" "$value"
                else
                    printf -v "${OPTION_VARIABLE[$option]}" %s "$value"
                fi
                ;;
            *)
                [[ -n $WORDS_VARIABLE ]] || usage_error "unknown argument '$1'"
                append_to "$WORDS_VARIABLE" "$1"
                if $is_first_word && contains "$1" "${FINAL_WORDS[@]}"; then
                    append_to "$WORDS_VARIABLE" "${@:2}"
                    return
                fi
                is_first_word=false
                ;;
        esac
        shift
    done
}

append_to() { # array-variable value…
    local -n array=$1
    array+=("${@:2}")
}

# Fails unless a name is one of the known ones.
expect_known() { # what name known…
    contains "$2" "${@:3}" || usage_error "unknown $1 '$2'; there are: ${*:3}"
}
