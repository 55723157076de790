// Made from the schema by `deno task types`; do not edit.
export type Json =
  | string
  | number
  | boolean
  | null
  | { [key: string]: Json | undefined }
  | Json[]

export type Database = {
  // Allows to automatically instantiate createClient with right options
  // instead of createClient<Database, { PostgrestVersion: 'XX' }>(URL, KEY)
  __InternalSupabase: {
    PostgrestVersion: "14.1"
  }
  public: {
    Tables: {
      alerts: {
        Row: {
          acknowledged_at: string | null
          acknowledged_by: string | null
          device_id: string | null
          evidence: NonNullable<Json>
          id: string
          kind: string
          opened_at: string
          resolved_at: string | null
          rollout_id: string | null
          severity: Database["public"]["Enums"]["alert_severity"]
          subject: string
          summary: string
        }
        Insert: {
          acknowledged_at?: string | null
          acknowledged_by?: string | null
          device_id?: string | null
          evidence?: NonNullable<Json>
          id?: string
          kind: string
          opened_at?: string
          resolved_at?: string | null
          rollout_id?: string | null
          severity?: Database["public"]["Enums"]["alert_severity"]
          subject?: string
          summary: string
        }
        Update: {
          acknowledged_at?: string | null
          acknowledged_by?: string | null
          device_id?: string | null
          evidence?: NonNullable<Json>
          id?: string
          kind?: string
          opened_at?: string
          resolved_at?: string | null
          rollout_id?: string | null
          severity?: Database["public"]["Enums"]["alert_severity"]
          subject?: string
          summary?: string
        }
        Relationships: [
          {
            foreignKeyName: "alerts_device_id_fkey"
            columns: ["device_id"]
            isOneToOne: false
            referencedRelation: "devices"
            referencedColumns: ["id"]
          },
          {
            foreignKeyName: "alerts_device_id_fkey"
            columns: ["device_id"]
            isOneToOne: false
            referencedRelation: "drifted_clocks"
            referencedColumns: ["device_id"]
          },
          {
            foreignKeyName: "alerts_device_id_fkey"
            columns: ["device_id"]
            isOneToOne: false
            referencedRelation: "offline_devices"
            referencedColumns: ["device_id"]
          },
          {
            foreignKeyName: "alerts_rollout_id_fkey"
            columns: ["rollout_id"]
            isOneToOne: false
            referencedRelation: "rollouts"
            referencedColumns: ["id"]
          },
        ]
      }
      audit_log: {
        Row: {
          action: string
          action_id: string
          actor: string
          actor_id: string | null
          after: Json | null
          at: string
          before: Json | null
          id: number
          row_id: string
          table_name: string
        }
        Insert: {
          action: string
          action_id?: string
          actor: string
          actor_id?: string | null
          after?: Json | null
          at?: string
          before?: Json | null
          id?: never
          row_id: string
          table_name: string
        }
        Update: {
          action?: string
          action_id?: string
          actor?: string
          actor_id?: string | null
          after?: Json | null
          at?: string
          before?: Json | null
          id?: never
          row_id?: string
          table_name?: string
        }
        Relationships: []
      }
      branches: {
        Row: {
          delivery: Database["public"]["Enums"]["branch_delivery"]
          description: string
          name: string
          rollout_template: string | null
        }
        Insert: {
          delivery?: Database["public"]["Enums"]["branch_delivery"]
          description?: string
          name: string
          rollout_template?: string | null
        }
        Update: {
          delivery?: Database["public"]["Enums"]["branch_delivery"]
          description?: string
          name?: string
          rollout_template?: string | null
        }
        Relationships: [
          {
            foreignKeyName: "branches_rollout_template_fkey"
            columns: ["rollout_template"]
            isOneToOne: false
            referencedRelation: "rollout_templates"
            referencedColumns: ["name"]
          },
        ]
      }
      device_commands: {
        Row: {
          answered_at: string | null
          args: NonNullable<Json>
          device_id: string
          expires_at: string
          id: string
          kind: Database["public"]["Enums"]["command_kind"]
          requested_at: string
          requested_by: string | null
          result: Json | null
          state: Database["public"]["Enums"]["command_state"]
        }
        Insert: {
          answered_at?: string | null
          args?: NonNullable<Json>
          device_id: string
          expires_at?: string
          id?: string
          kind: Database["public"]["Enums"]["command_kind"]
          requested_at?: string
          requested_by?: string | null
          result?: Json | null
          state?: Database["public"]["Enums"]["command_state"]
        }
        Update: {
          answered_at?: string | null
          args?: NonNullable<Json>
          device_id?: string
          expires_at?: string
          id?: string
          kind?: Database["public"]["Enums"]["command_kind"]
          requested_at?: string
          requested_by?: string | null
          result?: Json | null
          state?: Database["public"]["Enums"]["command_state"]
        }
        Relationships: [
          {
            foreignKeyName: "device_commands_device_id_fkey"
            columns: ["device_id"]
            isOneToOne: false
            referencedRelation: "devices"
            referencedColumns: ["id"]
          },
          {
            foreignKeyName: "device_commands_device_id_fkey"
            columns: ["device_id"]
            isOneToOne: false
            referencedRelation: "drifted_clocks"
            referencedColumns: ["device_id"]
          },
          {
            foreignKeyName: "device_commands_device_id_fkey"
            columns: ["device_id"]
            isOneToOne: false
            referencedRelation: "offline_devices"
            referencedColumns: ["device_id"]
          },
        ]
      }
      device_roles: {
        Row: {
          description: string
          name: string
        }
        Insert: {
          description?: string
          name: string
        }
        Update: {
          description?: string
          name?: string
        }
        Relationships: []
      }
      device_status: {
        Row: {
          agent_version: string | null
          attempt_id: string | null
          boot_id: string | null
          booted_at: string | null
          containers: NonNullable<Json>
          current_release: string | null
          device_id: string
          device_time: string | null
          error: string | null
          error_kind: string | null
          log_tail: NonNullable<Json>
          phase: string | null
          pinned_poll_interval_s: number | null
          reason: string | null
          reported_at: string
          resources: NonNullable<Json>
          settings: NonNullable<Json>
          state: Database["public"]["Enums"]["report_state"]
          target_release: string | null
        }
        Insert: {
          agent_version?: string | null
          attempt_id?: string | null
          boot_id?: string | null
          booted_at?: string | null
          containers?: NonNullable<Json>
          current_release?: string | null
          device_id: string
          device_time?: string | null
          error?: string | null
          error_kind?: string | null
          log_tail?: NonNullable<Json>
          phase?: string | null
          pinned_poll_interval_s?: never
          reason?: string | null
          reported_at?: string
          resources?: NonNullable<Json>
          settings?: NonNullable<Json>
          state?: Database["public"]["Enums"]["report_state"]
          target_release?: string | null
        }
        Update: {
          agent_version?: string | null
          attempt_id?: string | null
          boot_id?: string | null
          booted_at?: string | null
          containers?: NonNullable<Json>
          current_release?: string | null
          device_id?: string
          device_time?: string | null
          error?: string | null
          error_kind?: string | null
          log_tail?: NonNullable<Json>
          phase?: string | null
          pinned_poll_interval_s?: never
          reason?: string | null
          reported_at?: string
          resources?: NonNullable<Json>
          settings?: NonNullable<Json>
          state?: Database["public"]["Enums"]["report_state"]
          target_release?: string | null
        }
        Relationships: [
          {
            foreignKeyName: "device_status_current_release_fkey"
            columns: ["current_release"]
            isOneToOne: false
            referencedRelation: "failure_patterns"
            referencedColumns: ["release_id"]
          },
          {
            foreignKeyName: "device_status_current_release_fkey"
            columns: ["current_release"]
            isOneToOne: false
            referencedRelation: "release_signers"
            referencedColumns: ["release_id"]
          },
          {
            foreignKeyName: "device_status_current_release_fkey"
            columns: ["current_release"]
            isOneToOne: false
            referencedRelation: "releases"
            referencedColumns: ["id"]
          },
          {
            foreignKeyName: "device_status_device_id_fkey"
            columns: ["device_id"]
            isOneToOne: true
            referencedRelation: "devices"
            referencedColumns: ["id"]
          },
          {
            foreignKeyName: "device_status_device_id_fkey"
            columns: ["device_id"]
            isOneToOne: true
            referencedRelation: "drifted_clocks"
            referencedColumns: ["device_id"]
          },
          {
            foreignKeyName: "device_status_device_id_fkey"
            columns: ["device_id"]
            isOneToOne: true
            referencedRelation: "offline_devices"
            referencedColumns: ["device_id"]
          },
          {
            foreignKeyName: "device_status_target_release_fkey"
            columns: ["target_release"]
            isOneToOne: false
            referencedRelation: "failure_patterns"
            referencedColumns: ["release_id"]
          },
          {
            foreignKeyName: "device_status_target_release_fkey"
            columns: ["target_release"]
            isOneToOne: false
            referencedRelation: "release_signers"
            referencedColumns: ["release_id"]
          },
          {
            foreignKeyName: "device_status_target_release_fkey"
            columns: ["target_release"]
            isOneToOne: false
            referencedRelation: "releases"
            referencedColumns: ["id"]
          },
        ]
      }
      devices: {
        Row: {
          branch: string
          created_at: string
          enrolled_at: string | null
          hardware_model: string | null
          hold: boolean
          hold_reason: string | null
          hold_until: string | null
          id: string
          ignore_window_until: string | null
          key_number: number
          labels: NonNullable<Json>
          maintenance_window: string | null
          name: string
          os: string | null
          pinned_at: string | null
          pinned_release: string | null
          poll_interval_s: number | null
          public_key: string | null
          role: string
          segment: string
          state: Database["public"]["Enums"]["device_state"]
          timezone: string
          updated_at: string
        }
        Insert: {
          branch?: string
          created_at?: string
          enrolled_at?: string | null
          hardware_model?: string | null
          hold?: boolean
          hold_reason?: string | null
          hold_until?: string | null
          id?: string
          ignore_window_until?: string | null
          key_number?: number
          labels?: NonNullable<Json>
          maintenance_window?: string | null
          name: string
          os?: string | null
          pinned_at?: string | null
          pinned_release?: string | null
          poll_interval_s?: number | null
          public_key?: string | null
          role: string
          segment?: string
          state?: Database["public"]["Enums"]["device_state"]
          timezone?: string
          updated_at?: string
        }
        Update: {
          branch?: string
          created_at?: string
          enrolled_at?: string | null
          hardware_model?: string | null
          hold?: boolean
          hold_reason?: string | null
          hold_until?: string | null
          id?: string
          ignore_window_until?: string | null
          key_number?: number
          labels?: NonNullable<Json>
          maintenance_window?: string | null
          name?: string
          os?: string | null
          pinned_at?: string | null
          pinned_release?: string | null
          poll_interval_s?: number | null
          public_key?: string | null
          role?: string
          segment?: string
          state?: Database["public"]["Enums"]["device_state"]
          timezone?: string
          updated_at?: string
        }
        Relationships: [
          {
            foreignKeyName: "devices_branch_fkey"
            columns: ["branch"]
            isOneToOne: false
            referencedRelation: "branches"
            referencedColumns: ["name"]
          },
          {
            foreignKeyName: "devices_maintenance_window_fkey"
            columns: ["maintenance_window"]
            isOneToOne: false
            referencedRelation: "maintenance_windows"
            referencedColumns: ["name"]
          },
          {
            foreignKeyName: "devices_pinned_release_fkey"
            columns: ["pinned_release"]
            isOneToOne: false
            referencedRelation: "failure_patterns"
            referencedColumns: ["release_id"]
          },
          {
            foreignKeyName: "devices_pinned_release_fkey"
            columns: ["pinned_release"]
            isOneToOne: false
            referencedRelation: "release_signers"
            referencedColumns: ["release_id"]
          },
          {
            foreignKeyName: "devices_pinned_release_fkey"
            columns: ["pinned_release"]
            isOneToOne: false
            referencedRelation: "releases"
            referencedColumns: ["id"]
          },
          {
            foreignKeyName: "devices_role_fkey"
            columns: ["role"]
            isOneToOne: false
            referencedRelation: "device_roles"
            referencedColumns: ["name"]
          },
          {
            foreignKeyName: "devices_segment_fkey"
            columns: ["segment"]
            isOneToOne: false
            referencedRelation: "segments"
            referencedColumns: ["name"]
          },
        ]
      }
      fleet_settings: {
        Row: {
          audit_retention_months: number
          clock_drift_s: number
          default_poll_interval_s: number
          device_bytes_per_hour: number
          device_rows_per_hour: number
          device_token_ttl_s: number
          enroll_per_minute_per_address: number
          history_retention_months: number
          id: boolean
          max_in_flight: number | null
          max_pending_devices: number
          offline_after_intervals: number
          pending_role: string
          requests_per_hour_per_device: number
          spread_ms_per_device: number
          token_per_minute_per_address: number
          updated_at: string
          wake_one_by_one_up_to: number
        }
        Insert: {
          audit_retention_months?: number
          clock_drift_s?: number
          default_poll_interval_s?: number
          device_bytes_per_hour?: number
          device_rows_per_hour?: number
          device_token_ttl_s?: number
          enroll_per_minute_per_address?: number
          history_retention_months?: number
          id?: boolean
          max_in_flight?: number | null
          max_pending_devices?: number
          offline_after_intervals?: number
          pending_role?: string
          requests_per_hour_per_device?: number
          spread_ms_per_device?: number
          token_per_minute_per_address?: number
          updated_at?: string
          wake_one_by_one_up_to?: number
        }
        Update: {
          audit_retention_months?: number
          clock_drift_s?: number
          default_poll_interval_s?: number
          device_bytes_per_hour?: number
          device_rows_per_hour?: number
          device_token_ttl_s?: number
          enroll_per_minute_per_address?: number
          history_retention_months?: number
          id?: boolean
          max_in_flight?: number | null
          max_pending_devices?: number
          offline_after_intervals?: number
          pending_role?: string
          requests_per_hour_per_device?: number
          spread_ms_per_device?: number
          token_per_minute_per_address?: number
          updated_at?: string
          wake_one_by_one_up_to?: number
        }
        Relationships: [
          {
            foreignKeyName: "fleet_settings_pending_role_fkey"
            columns: ["pending_role"]
            isOneToOne: false
            referencedRelation: "device_roles"
            referencedColumns: ["name"]
          },
        ]
      }
      halts: {
        Row: {
          all_at_once: boolean
          cause: string
          evidence: NonNullable<Json>
          id: string
          lift_reason: string | null
          lifted_at: string | null
          lifted_by: string | null
          opened_at: string
          opened_by: string | null
          reason: string
          roll_back: boolean
          scope: Database["public"]["Enums"]["halt_scope"]
          target: string | null
        }
        Insert: {
          all_at_once?: boolean
          cause?: string
          evidence?: NonNullable<Json>
          id?: string
          lift_reason?: string | null
          lifted_at?: string | null
          lifted_by?: string | null
          opened_at?: string
          opened_by?: string | null
          reason: string
          roll_back?: boolean
          scope?: Database["public"]["Enums"]["halt_scope"]
          target?: string | null
        }
        Update: {
          all_at_once?: boolean
          cause?: string
          evidence?: NonNullable<Json>
          id?: string
          lift_reason?: string | null
          lifted_at?: string | null
          lifted_by?: string | null
          opened_at?: string
          opened_by?: string | null
          reason?: string
          roll_back?: boolean
          scope?: Database["public"]["Enums"]["halt_scope"]
          target?: string | null
        }
        Relationships: []
      }
      known_bad_patterns: {
        Row: {
          allow_empty: boolean
          cause: string
          evidence: NonNullable<Json>
          id: string
          lift_reason: string | null
          lifted_at: string | null
          lifted_by: string | null
          opened_at: string
          opened_by: string | null
          reason: string
          release_id: string
          selector: NonNullable<Json>
        }
        Insert: {
          allow_empty?: boolean
          cause?: string
          evidence?: NonNullable<Json>
          id?: string
          lift_reason?: string | null
          lifted_at?: string | null
          lifted_by?: string | null
          opened_at?: string
          opened_by?: string | null
          reason: string
          release_id: string
          selector: NonNullable<Json>
        }
        Update: {
          allow_empty?: boolean
          cause?: string
          evidence?: NonNullable<Json>
          id?: string
          lift_reason?: string | null
          lifted_at?: string | null
          lifted_by?: string | null
          opened_at?: string
          opened_by?: string | null
          reason?: string
          release_id?: string
          selector?: NonNullable<Json>
        }
        Relationships: [
          {
            foreignKeyName: "known_bad_patterns_release_id_fkey"
            columns: ["release_id"]
            isOneToOne: false
            referencedRelation: "failure_patterns"
            referencedColumns: ["release_id"]
          },
          {
            foreignKeyName: "known_bad_patterns_release_id_fkey"
            columns: ["release_id"]
            isOneToOne: false
            referencedRelation: "release_signers"
            referencedColumns: ["release_id"]
          },
          {
            foreignKeyName: "known_bad_patterns_release_id_fkey"
            columns: ["release_id"]
            isOneToOne: false
            referencedRelation: "releases"
            referencedColumns: ["id"]
          },
        ]
      }
      known_bad_releases: {
        Row: {
          at: string
          device_id: string
          error: string | null
          error_kind: string | null
          history_id: string | null
          release_id: string
        }
        Insert: {
          at?: string
          device_id: string
          error?: string | null
          error_kind?: string | null
          history_id?: string | null
          release_id: string
        }
        Update: {
          at?: string
          device_id?: string
          error?: string | null
          error_kind?: string | null
          history_id?: string | null
          release_id?: string
        }
        Relationships: [
          {
            foreignKeyName: "known_bad_releases_device_id_fkey"
            columns: ["device_id"]
            isOneToOne: false
            referencedRelation: "devices"
            referencedColumns: ["id"]
          },
          {
            foreignKeyName: "known_bad_releases_device_id_fkey"
            columns: ["device_id"]
            isOneToOne: false
            referencedRelation: "drifted_clocks"
            referencedColumns: ["device_id"]
          },
          {
            foreignKeyName: "known_bad_releases_device_id_fkey"
            columns: ["device_id"]
            isOneToOne: false
            referencedRelation: "offline_devices"
            referencedColumns: ["device_id"]
          },
          {
            foreignKeyName: "known_bad_releases_release_id_fkey"
            columns: ["release_id"]
            isOneToOne: false
            referencedRelation: "failure_patterns"
            referencedColumns: ["release_id"]
          },
          {
            foreignKeyName: "known_bad_releases_release_id_fkey"
            columns: ["release_id"]
            isOneToOne: false
            referencedRelation: "release_signers"
            referencedColumns: ["release_id"]
          },
          {
            foreignKeyName: "known_bad_releases_release_id_fkey"
            columns: ["release_id"]
            isOneToOne: false
            referencedRelation: "releases"
            referencedColumns: ["id"]
          },
        ]
      }
      maintenance_openings: {
        Row: {
          days: Database["public"]["Enums"]["opening_days"]
          id: string
          maintenance_window: string
          minutes: number
          starts_at: string
        }
        Insert: {
          days?: Database["public"]["Enums"]["opening_days"]
          id?: string
          maintenance_window: string
          minutes?: number
          starts_at: string
        }
        Update: {
          days?: Database["public"]["Enums"]["opening_days"]
          id?: string
          maintenance_window?: string
          minutes?: number
          starts_at?: string
        }
        Relationships: [
          {
            foreignKeyName: "maintenance_openings_maintenance_window_fkey"
            columns: ["maintenance_window"]
            isOneToOne: false
            referencedRelation: "maintenance_windows"
            referencedColumns: ["name"]
          },
        ]
      }
      maintenance_windows: {
        Row: {
          description: string
          name: string
          prefetch: boolean
        }
        Insert: {
          description?: string
          name: string
          prefetch?: boolean
        }
        Update: {
          description?: string
          name?: string
          prefetch?: boolean
        }
        Relationships: []
      }
      operators: {
        Row: {
          created_at: string
          email: string | null
          rank: Database["public"]["Enums"]["operator_rank"]
          user_id: string
        }
        Insert: {
          created_at?: string
          email?: string | null
          rank?: Database["public"]["Enums"]["operator_rank"]
          user_id: string
        }
        Update: {
          created_at?: string
          email?: string | null
          rank?: Database["public"]["Enums"]["operator_rank"]
          user_id?: string
        }
        Relationships: []
      }
      releases: {
        Row: {
          access: NonNullable<Json>
          all_at_once: boolean
          branch: string
          by_rollout_only: boolean
          commit_sha: string
          created_at: string
          created_by: string | null
          id: string
          notes: string
          requires_release: string | null
          state: Database["public"]["Enums"]["release_state"]
          version: string
        }
        Insert: {
          access?: NonNullable<Json>
          all_at_once?: boolean
          branch?: string
          by_rollout_only?: boolean
          commit_sha: string
          created_at?: string
          created_by?: string | null
          id?: string
          notes?: string
          requires_release?: string | null
          state?: Database["public"]["Enums"]["release_state"]
          version?: string
        }
        Update: {
          access?: NonNullable<Json>
          all_at_once?: boolean
          branch?: string
          by_rollout_only?: boolean
          commit_sha?: string
          created_at?: string
          created_by?: string | null
          id?: string
          notes?: string
          requires_release?: string | null
          state?: Database["public"]["Enums"]["release_state"]
          version?: string
        }
        Relationships: [
          {
            foreignKeyName: "releases_branch_fkey"
            columns: ["branch"]
            isOneToOne: false
            referencedRelation: "branches"
            referencedColumns: ["name"]
          },
          {
            foreignKeyName: "releases_requires_release_fkey"
            columns: ["requires_release"]
            isOneToOne: false
            referencedRelation: "failure_patterns"
            referencedColumns: ["release_id"]
          },
          {
            foreignKeyName: "releases_requires_release_fkey"
            columns: ["requires_release"]
            isOneToOne: false
            referencedRelation: "release_signers"
            referencedColumns: ["release_id"]
          },
          {
            foreignKeyName: "releases_requires_release_fkey"
            columns: ["requires_release"]
            isOneToOne: false
            referencedRelation: "releases"
            referencedColumns: ["id"]
          },
        ]
      }
      roll_back_slots: {
        Row: {
          attempts: number
          device_id: string
          ended_at: string | null
          error: string | null
          from_release: string
          lease_until: string
          rollout_id: string | null
          stage: number | null
          state: Database["public"]["Enums"]["claim_state"]
          taken_at: string
          to_release: string | null
        }
        Insert: {
          attempts?: number
          device_id: string
          ended_at?: string | null
          error?: string | null
          from_release: string
          lease_until: string
          rollout_id?: string | null
          stage?: number | null
          state?: Database["public"]["Enums"]["claim_state"]
          taken_at: string
          to_release?: string | null
        }
        Update: {
          attempts?: number
          device_id?: string
          ended_at?: string | null
          error?: string | null
          from_release?: string
          lease_until?: string
          rollout_id?: string | null
          stage?: number | null
          state?: Database["public"]["Enums"]["claim_state"]
          taken_at?: string
          to_release?: string | null
        }
        Relationships: [
          {
            foreignKeyName: "roll_back_slots_device_id_fkey"
            columns: ["device_id"]
            isOneToOne: false
            referencedRelation: "devices"
            referencedColumns: ["id"]
          },
          {
            foreignKeyName: "roll_back_slots_device_id_fkey"
            columns: ["device_id"]
            isOneToOne: false
            referencedRelation: "drifted_clocks"
            referencedColumns: ["device_id"]
          },
          {
            foreignKeyName: "roll_back_slots_device_id_fkey"
            columns: ["device_id"]
            isOneToOne: false
            referencedRelation: "offline_devices"
            referencedColumns: ["device_id"]
          },
          {
            foreignKeyName: "roll_back_slots_from_release_fkey"
            columns: ["from_release"]
            isOneToOne: false
            referencedRelation: "failure_patterns"
            referencedColumns: ["release_id"]
          },
          {
            foreignKeyName: "roll_back_slots_from_release_fkey"
            columns: ["from_release"]
            isOneToOne: false
            referencedRelation: "release_signers"
            referencedColumns: ["release_id"]
          },
          {
            foreignKeyName: "roll_back_slots_from_release_fkey"
            columns: ["from_release"]
            isOneToOne: false
            referencedRelation: "releases"
            referencedColumns: ["id"]
          },
          {
            foreignKeyName: "roll_back_slots_rollout_id_fkey"
            columns: ["rollout_id"]
            isOneToOne: false
            referencedRelation: "rollouts"
            referencedColumns: ["id"]
          },
          {
            foreignKeyName: "roll_back_slots_to_release_fkey"
            columns: ["to_release"]
            isOneToOne: false
            referencedRelation: "failure_patterns"
            referencedColumns: ["release_id"]
          },
          {
            foreignKeyName: "roll_back_slots_to_release_fkey"
            columns: ["to_release"]
            isOneToOne: false
            referencedRelation: "release_signers"
            referencedColumns: ["release_id"]
          },
          {
            foreignKeyName: "roll_back_slots_to_release_fkey"
            columns: ["to_release"]
            isOneToOne: false
            referencedRelation: "releases"
            referencedColumns: ["id"]
          },
        ]
      }
      rollout_claims: {
        Row: {
          attempt_id: string | null
          attempts: number
          claimed_at: string
          device_id: string
          ended_at: string | null
          from_release: string | null
          last_outcome: Database["public"]["Enums"]["claim_state"] | null
          lease_until: string
          outcome_number: number | null
          rollout_id: string
          stage: number
          state: Database["public"]["Enums"]["claim_state"]
          to_release: string
        }
        Insert: {
          attempt_id?: string | null
          attempts?: number
          claimed_at: string
          device_id: string
          ended_at?: string | null
          from_release?: string | null
          last_outcome?: Database["public"]["Enums"]["claim_state"] | null
          lease_until: string
          outcome_number?: number | null
          rollout_id: string
          stage: number
          state?: Database["public"]["Enums"]["claim_state"]
          to_release: string
        }
        Update: {
          attempt_id?: string | null
          attempts?: number
          claimed_at?: string
          device_id?: string
          ended_at?: string | null
          from_release?: string | null
          last_outcome?: Database["public"]["Enums"]["claim_state"] | null
          lease_until?: string
          outcome_number?: number | null
          rollout_id?: string
          stage?: number
          state?: Database["public"]["Enums"]["claim_state"]
          to_release?: string
        }
        Relationships: [
          {
            foreignKeyName: "rollout_claims_device_id_fkey"
            columns: ["device_id"]
            isOneToOne: false
            referencedRelation: "devices"
            referencedColumns: ["id"]
          },
          {
            foreignKeyName: "rollout_claims_device_id_fkey"
            columns: ["device_id"]
            isOneToOne: false
            referencedRelation: "drifted_clocks"
            referencedColumns: ["device_id"]
          },
          {
            foreignKeyName: "rollout_claims_device_id_fkey"
            columns: ["device_id"]
            isOneToOne: false
            referencedRelation: "offline_devices"
            referencedColumns: ["device_id"]
          },
          {
            foreignKeyName: "rollout_claims_from_release_fkey"
            columns: ["from_release"]
            isOneToOne: false
            referencedRelation: "failure_patterns"
            referencedColumns: ["release_id"]
          },
          {
            foreignKeyName: "rollout_claims_from_release_fkey"
            columns: ["from_release"]
            isOneToOne: false
            referencedRelation: "release_signers"
            referencedColumns: ["release_id"]
          },
          {
            foreignKeyName: "rollout_claims_from_release_fkey"
            columns: ["from_release"]
            isOneToOne: false
            referencedRelation: "releases"
            referencedColumns: ["id"]
          },
          {
            foreignKeyName: "rollout_claims_rollout_id_fkey"
            columns: ["rollout_id"]
            isOneToOne: false
            referencedRelation: "rollouts"
            referencedColumns: ["id"]
          },
          {
            foreignKeyName: "rollout_claims_to_release_fkey"
            columns: ["to_release"]
            isOneToOne: false
            referencedRelation: "failure_patterns"
            referencedColumns: ["release_id"]
          },
          {
            foreignKeyName: "rollout_claims_to_release_fkey"
            columns: ["to_release"]
            isOneToOne: false
            referencedRelation: "release_signers"
            referencedColumns: ["release_id"]
          },
          {
            foreignKeyName: "rollout_claims_to_release_fkey"
            columns: ["to_release"]
            isOneToOne: false
            referencedRelation: "releases"
            referencedColumns: ["id"]
          },
        ]
      }
      rollout_stages: {
        Row: {
          approved_at: string | null
          approved_by: string | null
          device_ids: string[] | null
          floor_bucket: number | null
          max_in_flight: number | null
          min_attempted: number
          min_success_ratio: number
          needs_approval: boolean
          opened_at: string | null
          percent: number | null
          position: number
          proved_at: string | null
          rollout_id: string
          segment: string | null
          size_at_opening: number | null
          soak_s: number
        }
        Insert: {
          approved_at?: string | null
          approved_by?: string | null
          device_ids?: string[] | null
          floor_bucket?: number | null
          max_in_flight?: number | null
          min_attempted?: number
          min_success_ratio?: number
          needs_approval?: boolean
          opened_at?: string | null
          percent?: number | null
          position: number
          proved_at?: string | null
          rollout_id: string
          segment?: string | null
          size_at_opening?: number | null
          soak_s?: number
        }
        Update: {
          approved_at?: string | null
          approved_by?: string | null
          device_ids?: string[] | null
          floor_bucket?: number | null
          max_in_flight?: number | null
          min_attempted?: number
          min_success_ratio?: number
          needs_approval?: boolean
          opened_at?: string | null
          percent?: number | null
          position?: number
          proved_at?: string | null
          rollout_id?: string
          segment?: string | null
          size_at_opening?: number | null
          soak_s?: number
        }
        Relationships: [
          {
            foreignKeyName: "rollout_stages_rollout_id_fkey"
            columns: ["rollout_id"]
            isOneToOne: false
            referencedRelation: "rollouts"
            referencedColumns: ["id"]
          },
          {
            foreignKeyName: "rollout_stages_segment_fkey"
            columns: ["segment"]
            isOneToOne: false
            referencedRelation: "segments"
            referencedColumns: ["name"]
          },
        ]
      }
      rollout_template_stages: {
        Row: {
          max_in_flight: number | null
          min_attempted: number
          min_success_ratio: number
          needs_approval: boolean
          percent: number | null
          position: number
          segment: string | null
          soak_s: number
          template: string
        }
        Insert: {
          max_in_flight?: number | null
          min_attempted?: number
          min_success_ratio?: number
          needs_approval?: boolean
          percent?: number | null
          position: number
          segment?: string | null
          soak_s?: number
          template: string
        }
        Update: {
          max_in_flight?: number | null
          min_attempted?: number
          min_success_ratio?: number
          needs_approval?: boolean
          percent?: number | null
          position?: number
          segment?: string | null
          soak_s?: number
          template?: string
        }
        Relationships: [
          {
            foreignKeyName: "rollout_template_stages_segment_fkey"
            columns: ["segment"]
            isOneToOne: false
            referencedRelation: "segments"
            referencedColumns: ["name"]
          },
          {
            foreignKeyName: "rollout_template_stages_template_fkey"
            columns: ["template"]
            isOneToOne: false
            referencedRelation: "rollout_templates"
            referencedColumns: ["name"]
          },
        ]
      }
      rollout_templates: {
        Row: {
          description: string
          halt_consecutive_failures: number | null
          halt_failure_ratio: number | null
          halt_max_failures: number | null
          halt_min_attempted: number
          lease_s: number
          max_attempts: number
          max_in_flight: number | null
          max_per_minute: number | null
          name: string
          offline_patience_s: number
          on_bad: Database["public"]["Enums"]["rollout_reaction"]
          regression_s: number
          remember_patterns: boolean
          role: string | null
          selector: NonNullable<Json>
        }
        Insert: {
          description?: string
          halt_consecutive_failures?: number | null
          halt_failure_ratio?: number | null
          halt_max_failures?: number | null
          halt_min_attempted?: number
          lease_s?: number
          max_attempts?: number
          max_in_flight?: number | null
          max_per_minute?: number | null
          name: string
          offline_patience_s?: number
          on_bad?: Database["public"]["Enums"]["rollout_reaction"]
          regression_s?: number
          remember_patterns?: boolean
          role?: string | null
          selector?: NonNullable<Json>
        }
        Update: {
          description?: string
          halt_consecutive_failures?: number | null
          halt_failure_ratio?: number | null
          halt_max_failures?: number | null
          halt_min_attempted?: number
          lease_s?: number
          max_attempts?: number
          max_in_flight?: number | null
          max_per_minute?: number | null
          name?: string
          offline_patience_s?: number
          on_bad?: Database["public"]["Enums"]["rollout_reaction"]
          regression_s?: number
          remember_patterns?: boolean
          role?: string | null
          selector?: NonNullable<Json>
        }
        Relationships: [
          {
            foreignKeyName: "rollout_templates_role_fkey"
            columns: ["role"]
            isOneToOne: false
            referencedRelation: "device_roles"
            referencedColumns: ["name"]
          },
        ]
      }
      rollouts: {
        Row: {
          allow_downgrade: boolean
          allow_empty: boolean
          branch: string | null
          created_at: string
          created_by: string | null
          ended_at: string | null
          halt_consecutive_failures: number | null
          halt_failure_ratio: number | null
          halt_max_failures: number | null
          halt_min_attempted: number
          id: string
          lease_s: number
          max_attempts: number
          max_in_flight: number | null
          max_per_minute: number | null
          name: string
          notes: string
          offline_patience_s: number
          on_bad: Database["public"]["Enums"]["rollout_reaction"]
          regression_s: number
          release_id: string
          remember_patterns: boolean
          role: string | null
          selector: NonNullable<Json>
          started_at: string | null
          started_by: string | null
          state: Database["public"]["Enums"]["rollout_state"]
        }
        Insert: {
          allow_downgrade?: boolean
          allow_empty?: boolean
          branch?: string | null
          created_at?: string
          created_by?: string | null
          ended_at?: string | null
          halt_consecutive_failures?: number | null
          halt_failure_ratio?: number | null
          halt_max_failures?: number | null
          halt_min_attempted?: number
          id?: string
          lease_s?: number
          max_attempts?: number
          max_in_flight?: number | null
          max_per_minute?: number | null
          name?: string
          notes?: string
          offline_patience_s?: number
          on_bad?: Database["public"]["Enums"]["rollout_reaction"]
          regression_s?: number
          release_id: string
          remember_patterns?: boolean
          role?: string | null
          selector?: NonNullable<Json>
          started_at?: string | null
          started_by?: string | null
          state?: Database["public"]["Enums"]["rollout_state"]
        }
        Update: {
          allow_downgrade?: boolean
          allow_empty?: boolean
          branch?: string | null
          created_at?: string
          created_by?: string | null
          ended_at?: string | null
          halt_consecutive_failures?: number | null
          halt_failure_ratio?: number | null
          halt_max_failures?: number | null
          halt_min_attempted?: number
          id?: string
          lease_s?: number
          max_attempts?: number
          max_in_flight?: number | null
          max_per_minute?: number | null
          name?: string
          notes?: string
          offline_patience_s?: number
          on_bad?: Database["public"]["Enums"]["rollout_reaction"]
          regression_s?: number
          release_id?: string
          remember_patterns?: boolean
          role?: string | null
          selector?: NonNullable<Json>
          started_at?: string | null
          started_by?: string | null
          state?: Database["public"]["Enums"]["rollout_state"]
        }
        Relationships: [
          {
            foreignKeyName: "rollouts_branch_fkey"
            columns: ["branch"]
            isOneToOne: false
            referencedRelation: "branches"
            referencedColumns: ["name"]
          },
          {
            foreignKeyName: "rollouts_release_id_fkey"
            columns: ["release_id"]
            isOneToOne: false
            referencedRelation: "failure_patterns"
            referencedColumns: ["release_id"]
          },
          {
            foreignKeyName: "rollouts_release_id_fkey"
            columns: ["release_id"]
            isOneToOne: false
            referencedRelation: "release_signers"
            referencedColumns: ["release_id"]
          },
          {
            foreignKeyName: "rollouts_release_id_fkey"
            columns: ["release_id"]
            isOneToOne: false
            referencedRelation: "releases"
            referencedColumns: ["id"]
          },
          {
            foreignKeyName: "rollouts_role_fkey"
            columns: ["role"]
            isOneToOne: false
            referencedRelation: "device_roles"
            referencedColumns: ["name"]
          },
        ]
      }
      segments: {
        Row: {
          description: string
          maintenance_window: string | null
          name: string
          position: number
        }
        Insert: {
          description?: string
          maintenance_window?: string | null
          name: string
          position?: number
        }
        Update: {
          description?: string
          maintenance_window?: string | null
          name?: string
          position?: number
        }
        Relationships: [
          {
            foreignKeyName: "segments_maintenance_window_fkey"
            columns: ["maintenance_window"]
            isOneToOne: false
            referencedRelation: "maintenance_windows"
            referencedColumns: ["name"]
          },
        ]
      }
      slo_targets: {
        Row: {
          description: string
          name: string
          target: number
          unit: string
        }
        Insert: {
          description?: string
          name: string
          target: number
          unit: string
        }
        Update: {
          description?: string
          name?: string
          target?: number
          unit?: string
        }
        Relationships: []
      }
      update_history: {
        Row: {
          agent_version: string | null
          bytes_fetched: number
          device_id: string
          error: string | null
          error_kind: string | null
          evidence: NonNullable<Json>
          failed_phase: string | null
          finished_at: string
          from_commit: string | null
          id: string
          outcome: Database["public"]["Enums"]["update_outcome"]
          phase_durations_ms: NonNullable<Json>
          received_at: string
          release_id: string | null
          rollout_id: string | null
          signer: string | null
          started_at: string
          to_commit: string
        }
        Insert: {
          agent_version?: string | null
          bytes_fetched?: number
          device_id: string
          error?: string | null
          error_kind?: string | null
          evidence?: NonNullable<Json>
          failed_phase?: string | null
          finished_at: string
          from_commit?: string | null
          id: string
          outcome: Database["public"]["Enums"]["update_outcome"]
          phase_durations_ms?: NonNullable<Json>
          received_at?: string
          release_id?: string | null
          rollout_id?: string | null
          signer?: string | null
          started_at: string
          to_commit: string
        }
        Update: {
          agent_version?: string | null
          bytes_fetched?: number
          device_id?: string
          error?: string | null
          error_kind?: string | null
          evidence?: NonNullable<Json>
          failed_phase?: string | null
          finished_at?: string
          from_commit?: string | null
          id?: string
          outcome?: Database["public"]["Enums"]["update_outcome"]
          phase_durations_ms?: NonNullable<Json>
          received_at?: string
          release_id?: string | null
          rollout_id?: string | null
          signer?: string | null
          started_at?: string
          to_commit?: string
        }
        Relationships: [
          {
            foreignKeyName: "update_history_device_id_fkey"
            columns: ["device_id"]
            isOneToOne: false
            referencedRelation: "devices"
            referencedColumns: ["id"]
          },
          {
            foreignKeyName: "update_history_device_id_fkey"
            columns: ["device_id"]
            isOneToOne: false
            referencedRelation: "drifted_clocks"
            referencedColumns: ["device_id"]
          },
          {
            foreignKeyName: "update_history_device_id_fkey"
            columns: ["device_id"]
            isOneToOne: false
            referencedRelation: "offline_devices"
            referencedColumns: ["device_id"]
          },
          {
            foreignKeyName: "update_history_release_id_fkey"
            columns: ["release_id"]
            isOneToOne: false
            referencedRelation: "failure_patterns"
            referencedColumns: ["release_id"]
          },
          {
            foreignKeyName: "update_history_release_id_fkey"
            columns: ["release_id"]
            isOneToOne: false
            referencedRelation: "release_signers"
            referencedColumns: ["release_id"]
          },
          {
            foreignKeyName: "update_history_release_id_fkey"
            columns: ["release_id"]
            isOneToOne: false
            referencedRelation: "releases"
            referencedColumns: ["id"]
          },
        ]
      }
    }
    Views: {
      devices_by_state: {
        Row: {
          devices: number | null
          offline: number | null
          report_state: Database["public"]["Enums"]["report_state"] | null
          role: string | null
          segment: string | null
          state: Database["public"]["Enums"]["device_state"] | null
        }
        Relationships: [
          {
            foreignKeyName: "devices_role_fkey"
            columns: ["role"]
            isOneToOne: false
            referencedRelation: "device_roles"
            referencedColumns: ["name"]
          },
          {
            foreignKeyName: "devices_segment_fkey"
            columns: ["segment"]
            isOneToOne: false
            referencedRelation: "segments"
            referencedColumns: ["name"]
          },
        ]
      }
      drifted_clocks: {
        Row: {
          ahead_s: number | null
          device_id: string | null
          device_time: string | null
          name: string | null
          reported_at: string | null
          segment: string | null
          sentence: string | null
          timezone: string | null
        }
        Relationships: [
          {
            foreignKeyName: "devices_segment_fkey"
            columns: ["segment"]
            isOneToOne: false
            referencedRelation: "segments"
            referencedColumns: ["name"]
          },
        ]
      }
      failure_patterns: {
        Row: {
          attempted: number | null
          attribute: string | null
          failed: number | null
          known_bad_pattern: string | null
          lift: number | null
          looked_at: string | null
          other_attempted: number | null
          other_failed: number | null
          release_id: string | null
          selector: Json | null
          sentence: string | null
          value: string | null
          version: string | null
        }
        Relationships: []
      }
      fleet_last_day: {
        Row: {
          alerts_opened: number | null
          alerts_resolved: number | null
          devices_joined: number | null
          devices_that_tried: number | null
          edits: number | null
          halts_lifted: number | null
          halts_opened: number | null
          people: number | null
          releases_added: number | null
          rollouts_ended: number | null
          rollouts_started: number | null
          updates_failed: number | null
          updates_rolled_back: number | null
          updates_skipped: number | null
          updates_succeeded: number | null
        }
        Relationships: []
      }
      fleet_overview: {
        Row: {
          active: number | null
          as_of: string | null
          degraded: number | null
          devices: number | null
          devices_in_flight: number | null
          healthy: number | null
          held: number | null
          isolated: number | null
          not_heard_yet: number | null
          offline: number | null
          online: number | null
          open_alerts: number | null
          open_halts: number | null
          pending: number | null
          pinned: number | null
          retired: number | null
          rolled_back: number | null
          rollouts_running: number | null
          safe_mode: number | null
          suspended: number | null
          updating: number | null
        }
        Relationships: []
      }
      offline_devices: {
        Row: {
          branch: string | null
          current_release: string | null
          device_id: string | null
          expected_every_s: number | null
          last_contact: string | null
          last_state: Database["public"]["Enums"]["report_state"] | null
          name: string | null
          offline_for: string | null
          role: string | null
          segment: string | null
        }
        Relationships: [
          {
            foreignKeyName: "device_status_current_release_fkey"
            columns: ["current_release"]
            isOneToOne: false
            referencedRelation: "failure_patterns"
            referencedColumns: ["release_id"]
          },
          {
            foreignKeyName: "device_status_current_release_fkey"
            columns: ["current_release"]
            isOneToOne: false
            referencedRelation: "release_signers"
            referencedColumns: ["release_id"]
          },
          {
            foreignKeyName: "device_status_current_release_fkey"
            columns: ["current_release"]
            isOneToOne: false
            referencedRelation: "releases"
            referencedColumns: ["id"]
          },
          {
            foreignKeyName: "devices_branch_fkey"
            columns: ["branch"]
            isOneToOne: false
            referencedRelation: "branches"
            referencedColumns: ["name"]
          },
          {
            foreignKeyName: "devices_role_fkey"
            columns: ["role"]
            isOneToOne: false
            referencedRelation: "device_roles"
            referencedColumns: ["name"]
          },
          {
            foreignKeyName: "devices_segment_fkey"
            columns: ["segment"]
            isOneToOne: false
            referencedRelation: "segments"
            referencedColumns: ["name"]
          },
        ]
      }
      release_signers: {
        Row: {
          devices: number | null
          release_id: string | null
          signer: string | null
        }
        Relationships: []
      }
      slo: {
        Row: {
          description: string | null
          met: boolean | null
          name: string | null
          sample: number | null
          target: number | null
          unit: string | null
          value: number | null
        }
        Relationships: []
      }
      update_durations: {
        Row: {
          attempts: number | null
          day: string | null
          p50_s: number | null
          p90_s: number | null
          p99_s: number | null
          release_id: string | null
          what: string | null
        }
        Relationships: []
      }
      update_outcomes_per_day: {
        Row: {
          attempts: number | null
          bytes_fetched: number | null
          day: string | null
          outcome: Database["public"]["Enums"]["update_outcome"] | null
          release_id: string | null
        }
        Relationships: []
      }
      version_adoption: {
        Row: {
          branch: string | null
          day: string | null
          devices: number | null
          percent: number | null
          release_id: string | null
          version: string | null
        }
        Relationships: [
          {
            foreignKeyName: "releases_branch_fkey"
            columns: ["branch"]
            isOneToOne: false
            referencedRelation: "branches"
            referencedColumns: ["name"]
          },
        ]
      }
    }
    Functions: {
      accept_device: {
        Args: { device_id: string }
        Returns: {
          branch: string
          created_at: string
          enrolled_at: string | null
          hardware_model: string | null
          hold: boolean
          hold_reason: string | null
          hold_until: string | null
          id: string
          ignore_window_until: string | null
          key_number: number
          labels: NonNullable<Json>
          maintenance_window: string | null
          name: string
          os: string | null
          pinned_at: string | null
          pinned_release: string | null
          poll_interval_s: number | null
          public_key: string | null
          role: string
          segment: string
          state: Database["public"]["Enums"]["device_state"]
          timezone: string
          updated_at: string
        }
        SetofOptions: {
          from: "*"
          to: "devices"
          isOneToOne: true
          isSetofReturn: false
        }
      }
      add_release: {
        Args: {
          access?: Json
          branch?: string
          commit_sha: string
          dry_run?: boolean
          notes?: string
          options?: Json
          role?: string
          stages?: Json
          template?: string
          version?: string
        }
        Returns: Json
      }
      adoption_over_time: {
        Args: { branch?: string; days?: number; role?: string }
        Returns: Json
      }
      approve_stage: {
        Args: { rollout_id: string; stage: number }
        Returns: {
          approved_at: string | null
          approved_by: string | null
          device_ids: string[] | null
          floor_bucket: number | null
          max_in_flight: number | null
          min_attempted: number
          min_success_ratio: number
          needs_approval: boolean
          opened_at: string | null
          percent: number | null
          position: number
          proved_at: string | null
          rollout_id: string
          segment: string | null
          size_at_opening: number | null
          soak_s: number
        }
        SetofOptions: {
          from: "*"
          to: "rollout_stages"
          isOneToOne: true
          isSetofReturn: false
        }
      }
      begin_device_token: {
        Args: { client_address: string; device_id: string }
        Returns: Json
      }
      cancel_rollout: {
        Args: { rollout_id: string }
        Returns: {
          allow_downgrade: boolean
          allow_empty: boolean
          branch: string | null
          created_at: string
          created_by: string | null
          ended_at: string | null
          halt_consecutive_failures: number | null
          halt_failure_ratio: number | null
          halt_max_failures: number | null
          halt_min_attempted: number
          id: string
          lease_s: number
          max_attempts: number
          max_in_flight: number | null
          max_per_minute: number | null
          name: string
          notes: string
          offline_patience_s: number
          on_bad: Database["public"]["Enums"]["rollout_reaction"]
          regression_s: number
          release_id: string
          remember_patterns: boolean
          role: string | null
          selector: NonNullable<Json>
          started_at: string | null
          started_by: string | null
          state: Database["public"]["Enums"]["rollout_state"]
        }
        SetofOptions: {
          from: "*"
          to: "rollouts"
          isOneToOne: true
          isSetofReturn: false
        }
      }
      change_devices: {
        Args: {
          change: Json
          device_ids?: string[]
          expected: number
          reason?: string
          selector: Json
        }
        Returns: Json
      }
      count_devices: { Args: { selector: Json }; Returns: number }
      create_provisioning_token: {
        Args: {
          auto_accept?: boolean
          branch?: string
          labels?: Json
          max_uses?: number
          note?: string
          role: string
          segment?: string
          valid_for_s?: number
        }
        Returns: Json
      }
      create_rollout: {
        Args: {
          options?: Json
          release_id: string
          role?: string
          stages?: Json
          template?: string
        }
        Returns: {
          allow_downgrade: boolean
          allow_empty: boolean
          branch: string | null
          created_at: string
          created_by: string | null
          ended_at: string | null
          halt_consecutive_failures: number | null
          halt_failure_ratio: number | null
          halt_max_failures: number | null
          halt_min_attempted: number
          id: string
          lease_s: number
          max_attempts: number
          max_in_flight: number | null
          max_per_minute: number | null
          name: string
          notes: string
          offline_patience_s: number
          on_bad: Database["public"]["Enums"]["rollout_reaction"]
          regression_s: number
          release_id: string
          remember_patterns: boolean
          role: string | null
          selector: NonNullable<Json>
          started_at: string | null
          started_by: string | null
          state: Database["public"]["Enums"]["rollout_state"]
        }
        SetofOptions: {
          from: "*"
          to: "rollouts"
          isOneToOne: true
          isSetofReturn: false
        }
      }
      desired_state: { Args: Record<PropertyKey, never>; Returns: Json }
      device_timeline: {
        Args: { at_most?: number; device_id: string; until?: string }
        Returns: Json
      }
      enroll_device: {
        Args: {
          assertion_expires_at: string
          client_address: string
          hardware_model?: string
          jti: string
          labels?: Json
          name: string
          os?: string
          public_key: string
          token_hash?: string
        }
        Returns: Json
      }
      explain_device: {
        Args: { at?: string; device_id: string }
        Returns: Json
      }
      finish_device_token: {
        Args: {
          assertion_expires_at: string
          device_id: string
          jti: string
          key_number?: number
        }
        Returns: Json
      }
      halt_fleet: {
        Args: { reason: string }
        Returns: {
          all_at_once: boolean
          cause: string
          evidence: NonNullable<Json>
          id: string
          lift_reason: string | null
          lifted_at: string | null
          lifted_by: string | null
          opened_at: string
          opened_by: string | null
          reason: string
          roll_back: boolean
          scope: Database["public"]["Enums"]["halt_scope"]
          target: string | null
        }
        SetofOptions: {
          from: "*"
          to: "halts"
          isOneToOne: true
          isSetofReturn: false
        }
      }
      halt_reach: {
        Args: {
          scope?: Database["public"]["Enums"]["halt_scope"]
          target?: string
        }
        Returns: Json
      }
      lift_halt: {
        Args: { halt_id: string; reason: string }
        Returns: {
          all_at_once: boolean
          cause: string
          evidence: NonNullable<Json>
          id: string
          lift_reason: string | null
          lifted_at: string | null
          lifted_by: string | null
          opened_at: string
          opened_by: string | null
          reason: string
          roll_back: boolean
          scope: Database["public"]["Enums"]["halt_scope"]
          target: string | null
        }
        SetofOptions: {
          from: "*"
          to: "halts"
          isOneToOne: true
          isSetofReturn: false
        }
      }
      lift_known_bad: {
        Args: { pattern_id: string; reason: string }
        Returns: {
          allow_empty: boolean
          cause: string
          evidence: NonNullable<Json>
          id: string
          lift_reason: string | null
          lifted_at: string | null
          lifted_by: string | null
          opened_at: string
          opened_by: string | null
          reason: string
          release_id: string
          selector: NonNullable<Json>
        }
        SetofOptions: {
          from: "*"
          to: "known_bad_patterns"
          isOneToOne: true
          isSetofReturn: false
        }
      }
      list_devices: {
        Args: {
          at_most?: number
          descending?: boolean
          selector?: Json
          skip?: number
          sort_by?: string
        }
        Returns: Json
      }
      mark_known_bad: {
        Args: {
          allow_empty?: boolean
          dry_run?: boolean
          reason: string
          release_id: string
          selector: Json
        }
        Returns: {
          allow_empty: boolean
          cause: string
          evidence: NonNullable<Json>
          id: string
          lift_reason: string | null
          lifted_at: string | null
          lifted_by: string | null
          opened_at: string
          opened_by: string | null
          reason: string
          release_id: string
          selector: NonNullable<Json>
        }
        SetofOptions: {
          from: "*"
          to: "known_bad_patterns"
          isOneToOne: true
          isSetofReturn: false
        }
      }
      matching_devices: {
        Args: { after?: string; at_most?: number; selector: Json }
        Returns: {
          branch: string
          created_at: string
          enrolled_at: string | null
          hardware_model: string | null
          hold: boolean
          hold_reason: string | null
          hold_until: string | null
          id: string
          ignore_window_until: string | null
          key_number: number
          labels: NonNullable<Json>
          maintenance_window: string | null
          name: string
          os: string | null
          pinned_at: string | null
          pinned_release: string | null
          poll_interval_s: number | null
          public_key: string | null
          role: string
          segment: string
          state: Database["public"]["Enums"]["device_state"]
          timezone: string
          updated_at: string
        }[]
        SetofOptions: {
          from: "*"
          to: "devices"
          isOneToOne: false
          isSetofReturn: true
        }
      }
      open_halts: {
        Args: Record<PropertyKey, never>
        Returns: {
          all_at_once: boolean
          cause: string
          devices: number
          going_back: number
          id: string
          is_past: boolean
          opened_at: string
          opened_by: string
          reason: string
          roll_back: boolean
          scope: Database["public"]["Enums"]["halt_scope"]
          subject: string
          target: string
        }[]
      }
      open_rollouts: { Args: { at?: string }; Returns: Json }
      pause_rollout: {
        Args: { rollout_id: string }
        Returns: {
          allow_downgrade: boolean
          allow_empty: boolean
          branch: string | null
          created_at: string
          created_by: string | null
          ended_at: string | null
          halt_consecutive_failures: number | null
          halt_failure_ratio: number | null
          halt_max_failures: number | null
          halt_min_attempted: number
          id: string
          lease_s: number
          max_attempts: number
          max_in_flight: number | null
          max_per_minute: number | null
          name: string
          notes: string
          offline_patience_s: number
          on_bad: Database["public"]["Enums"]["rollout_reaction"]
          regression_s: number
          release_id: string
          remember_patterns: boolean
          role: string | null
          selector: NonNullable<Json>
          started_at: string | null
          started_by: string | null
          state: Database["public"]["Enums"]["rollout_state"]
        }
        SetofOptions: {
          from: "*"
          to: "rollouts"
          isOneToOne: true
          isSetofReturn: false
        }
      }
      pin_device: {
        Args: { device_id: string; release_id: string }
        Returns: {
          branch: string
          created_at: string
          enrolled_at: string | null
          hardware_model: string | null
          hold: boolean
          hold_reason: string | null
          hold_until: string | null
          id: string
          ignore_window_until: string | null
          key_number: number
          labels: NonNullable<Json>
          maintenance_window: string | null
          name: string
          os: string | null
          pinned_at: string | null
          pinned_release: string | null
          poll_interval_s: number | null
          public_key: string | null
          role: string
          segment: string
          state: Database["public"]["Enums"]["device_state"]
          timezone: string
          updated_at: string
        }
        SetofOptions: {
          from: "*"
          to: "devices"
          isOneToOne: true
          isSetofReturn: false
        }
      }
      preview_going_back: {
        Args: {
          all_at_once?: boolean
          by_halt?: boolean
          release_id: string
          rollout_id?: string
        }
        Returns: Json
      }
      preview_rollout: {
        Args: { at?: string; rollout_id: string }
        Returns: {
          already_there: boolean
          device_id: string
          earliest: string
          held: boolean
          known_bad: boolean
          name: string
          segment: string
          stage: number
        }[]
      }
      provisioning_tokens: {
        Args: Record<PropertyKey, never>
        Returns: {
          auto_accept: boolean
          branch: string
          created_at: string
          created_by: string
          devices: string[]
          expires_at: string
          id: string
          labels: Json
          max_uses: number
          note: string
          replaces: string
          revoked_at: string
          role: string
          segment: string
          uses: number
        }[]
      }
      replace_device: {
        Args: { device_id: string; valid_for_s?: number }
        Returns: Json
      }
      replay_halt_rule: {
        Args: { rollout_id: string; rule?: Json }
        Returns: Json
      }
      resume_rollout: {
        Args: { rollout_id: string }
        Returns: {
          allow_downgrade: boolean
          allow_empty: boolean
          branch: string | null
          created_at: string
          created_by: string | null
          ended_at: string | null
          halt_consecutive_failures: number | null
          halt_failure_ratio: number | null
          halt_max_failures: number | null
          halt_min_attempted: number
          id: string
          lease_s: number
          max_attempts: number
          max_in_flight: number | null
          max_per_minute: number | null
          name: string
          notes: string
          offline_patience_s: number
          on_bad: Database["public"]["Enums"]["rollout_reaction"]
          regression_s: number
          release_id: string
          remember_patterns: boolean
          role: string | null
          selector: NonNullable<Json>
          started_at: string | null
          started_by: string | null
          state: Database["public"]["Enums"]["rollout_state"]
        }
        SetofOptions: {
          from: "*"
          to: "rollouts"
          isOneToOne: true
          isSetofReturn: false
        }
      }
      revoke_provisioning_token: {
        Args: { token_id: string }
        Returns: undefined
      }
      rollout_progress: { Args: { rollout_id: string }; Returns: Json }
      start_rollout: {
        Args: { rollout_id: string }
        Returns: {
          allow_downgrade: boolean
          allow_empty: boolean
          branch: string | null
          created_at: string
          created_by: string | null
          ended_at: string | null
          halt_consecutive_failures: number | null
          halt_failure_ratio: number | null
          halt_max_failures: number | null
          halt_min_attempted: number
          id: string
          lease_s: number
          max_attempts: number
          max_in_flight: number | null
          max_per_minute: number | null
          name: string
          notes: string
          offline_patience_s: number
          on_bad: Database["public"]["Enums"]["rollout_reaction"]
          regression_s: number
          release_id: string
          remember_patterns: boolean
          role: string | null
          selector: NonNullable<Json>
          started_at: string | null
          started_by: string | null
          state: Database["public"]["Enums"]["rollout_state"]
        }
        SetofOptions: {
          from: "*"
          to: "rollouts"
          isOneToOne: true
          isSetofReturn: false
        }
      }
      undo_changes: {
        Args: { action?: string; entries?: number[] }
        Returns: {
          entry_id: number
          message: string
          outcome: string
          row_id: string
          table_name: string
        }[]
      }
      unpin_device: {
        Args: { device_id: string }
        Returns: {
          branch: string
          created_at: string
          enrolled_at: string | null
          hardware_model: string | null
          hold: boolean
          hold_reason: string | null
          hold_until: string | null
          id: string
          ignore_window_until: string | null
          key_number: number
          labels: NonNullable<Json>
          maintenance_window: string | null
          name: string
          os: string | null
          pinned_at: string | null
          pinned_release: string | null
          poll_interval_s: number | null
          public_key: string | null
          role: string
          segment: string
          state: Database["public"]["Enums"]["device_state"]
          timezone: string
          updated_at: string
        }
        SetofOptions: {
          from: "*"
          to: "devices"
          isOneToOne: true
          isSetofReturn: false
        }
      }
    }
    Enums: {
      alert_severity: "info" | "warning" | "critical"
      branch_delivery: "rollout_only" | "immediate"
      claim_state:
        | "claimed"
        | "succeeded"
        | "failed"
        | "rolled_back"
        | "expired"
        | "regressed"
        | "released"
      command_kind:
        | "update_now"
        | "rollback"
        | "enter_safe_mode"
        | "leave_safe_mode"
        | "restart"
        | "tail_logs"
        | "check_drift"
      command_state: "queued" | "succeeded" | "failed" | "expired"
      device_state: "pending" | "active" | "suspended" | "retired"
      halt_scope:
        | "fleet"
        | "segment"
        | "role"
        | "branch"
        | "release"
        | "rollout"
      opening_days:
        | "daily"
        | "weekdays"
        | "weekends"
        | "monday"
        | "tuesday"
        | "wednesday"
        | "thursday"
        | "friday"
        | "saturday"
        | "sunday"
      operator_rank: "viewer" | "operator" | "admin"
      release_state: "available" | "withdrawn"
      report_state:
        | "healthy"
        | "updating"
        | "degraded"
        | "rolled_back"
        | "isolated"
        | "safe_mode"
      rollout_reaction: "halt_rollout" | "halt_release" | "roll_back"
      rollout_state:
        | "draft"
        | "running"
        | "paused"
        | "completed"
        | "superseded"
        | "cancelled"
      update_outcome: "succeeded" | "failed" | "rolled_back" | "skipped"
    }
    CompositeTypes: {
      [_ in never]: never
    }
  }
}

type DatabaseWithoutInternals = Omit<Database, "__InternalSupabase">

type DefaultSchema = DatabaseWithoutInternals[Extract<keyof Database, "public">]

export type Tables<
  DefaultSchemaTableNameOrOptions extends
    | keyof (DefaultSchema["Tables"] & DefaultSchema["Views"])
    | { schema: keyof DatabaseWithoutInternals },
  TableName extends (DefaultSchemaTableNameOrOptions extends {
    schema: keyof DatabaseWithoutInternals
  }
    ? keyof (DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Tables"] &
        DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Views"])
    : never) = never,
> = DefaultSchemaTableNameOrOptions extends {
  schema: keyof DatabaseWithoutInternals
}
  ? (DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Tables"] &
      DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Views"])[TableName] extends {
      Row: infer R
    }
    ? R
    : never
  : DefaultSchemaTableNameOrOptions extends keyof (DefaultSchema["Tables"] &
        DefaultSchema["Views"])
    ? (DefaultSchema["Tables"] &
        DefaultSchema["Views"])[DefaultSchemaTableNameOrOptions] extends {
        Row: infer R
      }
      ? R
      : never
    : never

export type TablesInsert<
  DefaultSchemaTableNameOrOptions extends
    | keyof DefaultSchema["Tables"]
    | { schema: keyof DatabaseWithoutInternals },
  TableName extends (DefaultSchemaTableNameOrOptions extends {
    schema: keyof DatabaseWithoutInternals
  }
    ? keyof DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Tables"]
    : never) = never,
> = DefaultSchemaTableNameOrOptions extends {
  schema: keyof DatabaseWithoutInternals
}
  ? DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Tables"][TableName] extends {
      Insert: infer I
    }
    ? I
    : never
  : DefaultSchemaTableNameOrOptions extends keyof DefaultSchema["Tables"]
    ? DefaultSchema["Tables"][DefaultSchemaTableNameOrOptions] extends {
        Insert: infer I
      }
      ? I
      : never
    : never

export type TablesUpdate<
  DefaultSchemaTableNameOrOptions extends
    | keyof DefaultSchema["Tables"]
    | { schema: keyof DatabaseWithoutInternals },
  TableName extends (DefaultSchemaTableNameOrOptions extends {
    schema: keyof DatabaseWithoutInternals
  }
    ? keyof DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Tables"]
    : never) = never,
> = DefaultSchemaTableNameOrOptions extends {
  schema: keyof DatabaseWithoutInternals
}
  ? DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Tables"][TableName] extends {
      Update: infer U
    }
    ? U
    : never
  : DefaultSchemaTableNameOrOptions extends keyof DefaultSchema["Tables"]
    ? DefaultSchema["Tables"][DefaultSchemaTableNameOrOptions] extends {
        Update: infer U
      }
      ? U
      : never
    : never

export type Enums<
  DefaultSchemaEnumNameOrOptions extends
    | keyof DefaultSchema["Enums"]
    | { schema: keyof DatabaseWithoutInternals },
  EnumName extends (DefaultSchemaEnumNameOrOptions extends {
    schema: keyof DatabaseWithoutInternals
  }
    ? keyof DatabaseWithoutInternals[DefaultSchemaEnumNameOrOptions["schema"]]["Enums"]
    : never) = never,
> = DefaultSchemaEnumNameOrOptions extends {
  schema: keyof DatabaseWithoutInternals
}
  ? DatabaseWithoutInternals[DefaultSchemaEnumNameOrOptions["schema"]]["Enums"][EnumName]
  : DefaultSchemaEnumNameOrOptions extends keyof DefaultSchema["Enums"]
    ? DefaultSchema["Enums"][DefaultSchemaEnumNameOrOptions]
    : never

export type CompositeTypes<
  PublicCompositeTypeNameOrOptions extends
    | keyof DefaultSchema["CompositeTypes"]
    | { schema: keyof DatabaseWithoutInternals },
  CompositeTypeName extends (PublicCompositeTypeNameOrOptions extends {
    schema: keyof DatabaseWithoutInternals
  }
    ? keyof DatabaseWithoutInternals[PublicCompositeTypeNameOrOptions["schema"]]["CompositeTypes"]
    : never) = never,
> = PublicCompositeTypeNameOrOptions extends {
  schema: keyof DatabaseWithoutInternals
}
  ? DatabaseWithoutInternals[PublicCompositeTypeNameOrOptions["schema"]]["CompositeTypes"][CompositeTypeName]
  : PublicCompositeTypeNameOrOptions extends keyof DefaultSchema["CompositeTypes"]
    ? DefaultSchema["CompositeTypes"][PublicCompositeTypeNameOrOptions]
    : never

export const Constants = {
  public: {
    Enums: {
      alert_severity: ["info", "warning", "critical"],
      branch_delivery: ["rollout_only", "immediate"],
      claim_state: [
        "claimed",
        "succeeded",
        "failed",
        "rolled_back",
        "expired",
        "regressed",
        "released",
      ],
      command_kind: [
        "update_now",
        "rollback",
        "enter_safe_mode",
        "leave_safe_mode",
        "restart",
        "tail_logs",
        "check_drift",
      ],
      command_state: ["queued", "succeeded", "failed", "expired"],
      device_state: ["pending", "active", "suspended", "retired"],
      halt_scope: ["fleet", "segment", "role", "branch", "release", "rollout"],
      opening_days: [
        "daily",
        "weekdays",
        "weekends",
        "monday",
        "tuesday",
        "wednesday",
        "thursday",
        "friday",
        "saturday",
        "sunday",
      ],
      operator_rank: ["viewer", "operator", "admin"],
      release_state: ["available", "withdrawn"],
      report_state: [
        "healthy",
        "updating",
        "degraded",
        "rolled_back",
        "isolated",
        "safe_mode",
      ],
      rollout_reaction: ["halt_rollout", "halt_release", "roll_back"],
      rollout_state: [
        "draft",
        "running",
        "paused",
        "completed",
        "superseded",
        "cancelled",
      ],
      update_outcome: ["succeeded", "failed", "rolled_back", "skipped"],
    },
  },
} as const
