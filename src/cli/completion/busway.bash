# bash completion for busway. The words come from the command itself (`busway help --words`), so they are never out of date;
# topics come from the bus that the line names, if it answers within a second.
_busway() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} program=${COMP_WORDS[0]}
    local command='' i word url=() takes_value words
    COMPREPLY=()

    # -b dir:./x is cut at its colons by bash: take the words as typed.
    local line=() joined
    read -ra line <<<"${COMP_LINE:0:COMP_POINT}"
    for ((i = 1; i < ${#line[@]}; i++)); do
        word=${line[i]}
        case $word in
        -b | --bus | --transport | --timeout)
            [[ $word == -b || $word == --bus ]] && [[ -n ${line[i + 1]:-} ]] && url=(-b "${line[i + 1]}")
            ((i++))
            ;;
        -*) ;;
        *)
            if [[ -z $command ]]; then command=$word
            elif [[ $command == topic || $command == group || $command == txn || $command == quota || $command == queue ]]; then command="$command $word"; fi
            ;;
        esac
    done
    # The word that is being typed is no command yet.
    joined=${COMP_LINE:0:COMP_POINT}
    if [[ -n $cur && $joined != *' ' ]]; then
        [[ $command == "$cur" ]] && command=''
        [[ $command == *" $cur" ]] && command=${command% *}
    fi

    case $prev in
    --transport) mapfile -t COMPREPLY < <(compgen -W 'auto direct ipc' -- "$cur"); return ;;
    --acks) mapfile -t COMPREPLY < <(compgen -W 'none visible durable' -- "$cur"); return ;;
    --read-limit) mapfile -t COMPREPLY < <(compgen -W 'visible durable' -- "$cur"); return ;;
    --isolation) mapfile -t COMPREPLY < <(compgen -W 'uncommitted committed' -- "$cur"); return ;;
    --reset) mapfile -t COMPREPLY < <(compgen -W 'error earliest latest' -- "$cur"); return ;;
    -z | --compression) mapfile -t COMPREPLY < <(compgen -W 'none gzip snappy lz4 zstd' -- "$cur"); return ;;
    -o | --offset) mapfile -t COMPREPLY < <(compgen -W 'beginning end' -- "$cur"); return ;;
    -l | --lines) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    esac

    if [[ -z $command ]]; then
        words=$("$program" help --words 2>/dev/null | cut -d' ' -f1 | sort -u)
        mapfile -t COMPREPLY < <(compgen -W "$words help --help --version -b --transport" -- "$cur")
        return
    fi
    if [[ $command == topic || $command == group || $command == txn || $command == quota || $command == queue ]]; then
        words=$("$program" help --words 2>/dev/null | sed -n "s/^$command //p")
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
        return
    fi
    if [[ $command == help* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$("$program" help --words 2>/dev/null | cut -d' ' -f1 | sort -u)" -- "$cur")
        return
    fi
    # shellcheck disable=SC2086 # the command's name is one or two words
    words=$("$program" help --words $command 2>/dev/null)
    if [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "${words//=/}" -- "$cur")
        return
    fi
    # An option that takes a value of its own: nothing to say about it.
    while read -r takes_value; do
        [[ $takes_value == "$prev=" ]] && return
    done <<<"$words"
    case $command in
    verify | dump) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
    produce | consume | bench | 'topic describe' | 'topic alter' | 'topic delete' | 'topic purge')
        # A folder is opened only when it is there already: completing must not make one.
        case ${url[1]:-${BUSWAY_URL:-}} in
        dir:*) [[ -d $(cut -d'?' -f1 <<<"${url[1]:-$BUSWAY_URL}" | sed 's/^dir://') ]] || return ;;
        '') [[ -S /run/busway/bus.sock ]] || return ;;
        esac
        words=$("$program" "${url[@]}" -q --timeout 1 topic list --json 2>/dev/null | grep -oE '"name":"[^"]*"' | cut -d'"' -f4)
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
        ;;
    esac
}
complete -o default -F _busway busway
